import t from 'tap';
import type { Endpoint } from '../../agent/cli/answer.js';
import { call } from '../../agent/cli/call.js';
import { NoAnswer, RpcFailure } from '../../agent/cli/failure.js';

/** Fails so many times, and then answers. */
function endpoint(failures: number, error: Error): Endpoint & { calls: number } {
  const counted = {
    calls: 0,
    async call() {
      counted.calls += 1;
      if (counted.calls <= failures) throw error;
      return 'answer';
    },
    close() {},
  };
  return counted as unknown as Endpoint & { calls: number };
}

const once = { timeoutSeconds: 1, retrySeconds: 0 };
const recovering = new RpcFailure(99, 'It takes stock.', { name: 'RecoveryInProgress', retryable: true });
const busy = new RpcFailure(5009, 'Busy.', { name: 'BackupBusy', retryable: true });

t.test('a daemon that takes stock is waited for, without being asked to', async (t) => {
  const daemon = endpoint(2, recovering);
  t.equal(await call(daemon, 'getHostInfo', {}, once), 'answer');
  t.equal(daemon.calls, 3);
});

t.test('nothing else is', async (t) => {
  for (const error of [busy, new NoAnswer('gone'), new RpcFailure(1, 'No.', { name: 'NoSuchVM' })]) {
    const daemon = endpoint(1, error);
    await t.rejects(call(daemon, 'getHostInfo', {}, once), error);
    t.equal(daemon.calls, 1);
  }
});

t.test('--retry goes on for as long as it says', async (t) => {
  const daemon = endpoint(1, busy);
  t.equal(await call(daemon, 'getHostInfo', {}, { ...once, retrySeconds: 10 }), 'answer');
  const lasting = endpoint(1000, busy);
  await t.rejects(call(lasting, 'getHostInfo', {}, { ...once, retrySeconds: 3 }), busy);
  t.equal(lasting.calls, 2);
});
