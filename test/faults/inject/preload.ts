/**
 * Loaded into the daemon under test before anything of its own (`node --import`). It stands at Node's boundary, where
 * every deed passes that changes something outside the daemon, so that nothing of it is in the product.
 *
 * Environment: FAULTS_TRACE, a file that gets a line a point; FAULTS_ARM, an `Arming` in force from the start;
 * FAULTS_CONTROL, the path of a UNIX socket that takes an `Arming` a line and answers with an empty one.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { wrapFiles } from './files.js';
import { wrapLibvirt } from './libvirt.js';
import { arm } from './point.js';
import { wrapProcesses } from './processes.js';

const path = process.env.FAULTS_CONTROL ?? '';
const control = net.createServer((socket) => {
  socket.on('error', () => {}).unref();
  createInterface({ input: socket }).on('line', (line) => {
    arm(JSON.parse(line));
    socket.write('\n');
  });
});
fs.rmSync(path, { force: true }); // of one that was killed
await new Promise<void>((listening) => control.listen(path, listening));
control.unref();

await wrapFiles();
wrapProcesses();
wrapLibvirt();
syncBuiltinESMExports();
