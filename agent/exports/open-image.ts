import type { PrepareBackupDiskParams } from '../api/generated.js';
import { ALLOCATION_CONTEXT } from '../changed-blocks/map.js';
import type { MapPlan } from '../changed-blocks/plan.js';
import { redefineCheckpoint, redefinitionXml } from '../domains/checkpoints.js';
import { AgentError } from '../errors.js';
import { isSameFile } from '../host/open-files.js';
import { addBitmap } from '../images/bitmaps.js';
import type { Layer } from '../images/chain.js';
import { planCheckpoint, rememberCheckpoint } from '../points-in-time/checkpoint-life.js';
import { exclusively, IN_TURN } from '../points-in-time/context.js';
import { knownFiles } from '../points-in-time/disk-now.js';
import { localUser } from './access.js';
import { claimFiles } from './claim.js';
import { type ExportCall, type ExportsContext, STEP_MS } from './context.js';
import { whileServed } from './failure.js';
import { openFront } from './front.js';
import { keepData } from './keep-data.js';
import { planMap } from './plan-map.js';
import type { ImagePoint } from './point-in-time.js';
import type { ExportRecord, MapRecord } from './record.js';
import { bitmapContext, serve } from './serve.js';

/**
 * Opens an export of files: checkpoint first, where one is wanted, then a qemu-nbd of its own. All of it is on record as
 * `starting`: where a step fails, `takeBack` knows from that what to undo.
 */
export async function openImage(
  context: ExportsContext,
  starting: ExportRecord,
  point: ImagePoint,
  call: ExportCall,
): Promise<ExportRecord> {
  const { registry, settings } = context;
  const { exportId, params, serverName, use } = starting;
  const { access = 'read-only' } = params;
  const { plan, reason } = await planMap(context, params, point, call.signal);
  const claim = {
    ...starting,
    layers: point.layers.map(({ path, format, file }) => ({ path, format, file })),
    blocksStart: point.blocksStart,
    checkpoint: params.checkpoint ?? null,
  };
  if (access === 'read-write') refuseDevice(point);
  if (starting.newImage !== null) refuseOther(starting.newImage, point);
  const claimed = await claimFiles(context, claim, call.signal);
  if (params.checkpoint !== undefined)
    await makeCheckpointOff(context, point, params.checkpoint, exportId, call);
  const user = localUser(params) ?? null;
  const kind = { write: access === 'read-write', behind: access === 'scratch' };
  const request = { exportId, serverName, layers: point.layers, plan, ...kind, user };
  const { server, source, capacity } = await serve(context, request, call.signal);
  const served = await registry.save({ ...claimed, server });
  const opened = await openFront(context, { ...served, server }, capacity, call.signal);
  if (use === 'mount') return opened;
  const map = mapRecord(params, plan, source, reason);
  if (access === 'read-only') return { ...opened, map };
  if (!kind.write) return { ...opened, map: { ...map, metaContext: null } };
  // What it says of now has to stay when clients have written.
  const wait = { timeoutMs: STEP_MS, signal: call.signal };
  const data = await whileServed(context, opened, () =>
    keepData(settings, exportId, { ...server, capacity }, wait),
  );
  return { ...opened, map: { ...map, metaContext: null, source: { kind: 'allocation', data } } };
}

/**
 * QEMU's locks are of a device's node and not of the device, and libvirt gives each VM nodes of its own (qemu.conf,
 * namespaces): a VM could start beside the writer, and neither would notice.
 * @throws AgentError `UnsupportedDisk`
 */
function refuseDevice({ layers: [top] }: ImagePoint): void {
  if (top === undefined || !top.isBlockDevice) return;
  throw new AgentError(
    'UnsupportedDisk',
    `${top.path} is a block device, on which no lock would keep a VM from starting beside the writer; write to it with a tool of the host while its VM is undefined, or use access "scratch".`,
  );
}

/** @throws AgentError `UnsafeImage` where another image has come to be at the path of the one that was made */
function refuseOther({ file }: NonNullable<ExportRecord['newImage']>, { layers: [top] }: ImagePoint): void {
  if (top !== undefined && file !== null && isSameFile(top.file, file)) return;
  throw new AgentError(
    'UnsafeImage',
    `The new image was exchanged before it could be opened; see who writes to the directory of ${top?.path}.`,
  );
}

function mapRecord(
  { since }: Pick<PrepareBackupDiskParams, 'since'>,
  plan: MapPlan<Layer>,
  source: MapRecord['source'],
  reason: MapRecord['reason'],
): MapRecord {
  const { mode, origin, granularity } = plan;
  return {
    mode,
    since: mode === 'incremental' && since !== undefined ? since : null,
    reason,
    origin,
    metaContext: wholeContext(plan),
    granularity,
    source,
  };
}

/** The meta context that is by itself the whole map; null where the map is more, or less, than one context says. */
function wholeContext(plan: MapPlan<Layer>): string | null {
  switch (plan.origin) {
    case 'allocation':
      return ALLOCATION_CONTEXT;
    case 'depth':
      // Above a layer that has others below, only part of the depths count.
      return null;
    case 'bitmap':
      return plan.layers.length === 1 ? bitmapContext(plan.bitmap) : null;
  }
}

/**
 * Makes a checkpoint of a VM that is off: a bitmap in the top image, and libvirt told of it. It counts from now on,
 * also after the VM starts.
 */
async function makeCheckpointOff(
  context: ExportsContext,
  { of, layers }: ImagePoint,
  name: string,
  exportId: string,
  { signal }: ExportCall,
): Promise<void> {
  const [top] = layers;
  if (of === null || top === undefined) throw new Error('a checkpoint is of a VM, by the schema');
  const { state, disk } = of;
  const { domain } = state;
  if (!top.holdsBitmaps) {
    throw new AgentError(
      'NotTracked',
      `${top.path} cannot hold a checkpoint's bitmap; convert it to qcow2 (compat 1.1), or leave checkpoint out.`,
      { vmId: domain.uuid, disk: disk.target },
    );
  }
  // Another's bitmap of that name stays untouched, also when this is taken back.
  if (layers.some(({ bitmaps }) => bitmaps.some((bitmap) => bitmap.name === name))) {
    throw new AgentError(
      'AlreadyExists',
      `${disk.target} of ${domain.name} has a bitmap "${name}" already; use a new name for the checkpoint.`,
      { vmId: domain.uuid, disk: disk.target },
    );
  }
  const make = async () => {
    const files = await knownFiles(layers.map((layer) => layer.path));
    const disks = [{ target: disk.target, capacity: top.capacity, files }];
    const by = { kind: 'export', id: exportId } as const;
    const record = await planCheckpoint(context, state, name, by, disks, signal);
    await addBitmap(top, name, context.points, signal);
    const xml = await redefinitionXml(context.libvirt, state, name, [disk.target], signal);
    await redefineCheckpoint(context.libvirt, domain, xml, false, signal);
    await rememberCheckpoint(context, state, record, signal);
  };
  await exclusively(context, domain, `prepareBackupDisk "${exportId}"${IN_TURN}`, make, IN_TURN);
}
