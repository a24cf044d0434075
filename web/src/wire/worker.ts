/**
 * The worker: socket, decoding, coalescing. The page only draws.
 *
 * One post is under way at a time; the next one leaves when the page has taken it. Meanwhile rows gather, and of the frames of an
 * array only the newest stays: a page that is slow or hidden costs neither memory nor the server's patience.
 */

import { columnsOf } from './arrow';
import { cellsOf, isNumeric } from './cells';
import { Link } from './link';
import { connectMany } from './many';
import type { BlockEvent, Cells, DataType, FromWorker, Message, Numbers, Post, ToWorker } from './messages';

/** Milliseconds between posts: twice a frame. */
const PACE = 30;

const page = self as unknown as { postMessage(post: Post, transfer: Transferable[]): void; onmessage: unknown };
/** Data types of arrays, by path: their schema tells. */
const types = new Map<string, DataType>();

let events: FromWorker[] = [];
/** Raw frames that wait to be decoded, by their place in `events`: those that are replaced before are never decoded. */
let raw = new Map<BlockEvent, { type: DataType; bytes: Uint8Array }>();
let lastBlocks = new Map<string, BlockEvent>();
let figures = { messages: 0, bytes: 0 };
let isUnderWay = false;
let timer = 0;

function tell(event: FromWorker): void {
  events.push(event);
  plan();
}

function plan(): void {
  if (!timer && !isUnderWay && events.length) timer = setTimeout(flush, PACE) as unknown as number;
}

function flush(): void {
  timer = 0;
  if (isUnderWay || !events.length) return;
  const transfer: Transferable[] = [];
  for (const [event, { type, bytes }] of raw) {
    event.cells = cellsOf(type, bytes);
    transfer.push(event.cells.buffer as ArrayBuffer);
  }
  for (const event of events) if (event.kind === 'rows') transfer.push(...buffersOf(event.columns));
  isUnderWay = true;
  page.postMessage({ events, ...figures }, transfer);
  events = [];
  raw = new Map();
  lastBlocks = new Map();
  figures = { messages: 0, bytes: 0 };
}

function buffersOf(columns: Record<string, Cells>): Transferable[] {
  return Object.values(columns).flatMap((cells) => (ArrayBuffer.isView(cells) ? [cells.buffer as ArrayBuffer] : []));
}

/** An Arrow file that the page has read over HTTP; does not wait in line. */
function decodeFor(token: number, bytes: Uint8Array): void {
  const post: Post = { events: [], messages: 0, bytes: 0 };
  try {
    const decoded = columnsOf(bytes);
    page.postMessage({ ...post, decoded: { token, ...decoded } }, buffersOf(decoded.columns));
  } catch (error) {
    page.postMessage({ ...post, decoded: { token, count: 0, columns: {}, error: String(error) } }, []);
  }
}

const link = new Link(
  {
    onState: tell,
    onBytes: (bytes) => {
      figures.messages += 1;
      figures.bytes += bytes;
    },
    onMessage: (id, path, name, message) => understand(id, [...path, ...(name ? [name] : [])].join('/'), message),
  },
  connectMany,
);

function understand(id: number, path: string, message: Message): void {
  const of = { id, path };
  switch (message.type) {
    case 'array-schema':
      types.set(path, message.data_type);
      return;
    case 'subscribed':
      return tell({ kind: 'subscribed', ...of, head: message.head ?? null, from: message.from ?? null, epoch: message.epoch ?? null });
    case 'node': {
      const { structure_family: family, specs, metadata, structure, head } = message;
      if (structure?.data_type) types.set(path, structure.data_type);
      return tell({ kind: 'node', ...of, family, specs, metadata, structure, head });
    }
    case 'container-child-created':
    case 'container-child-metadata-updated':
      return tell({
        kind: 'child',
        ...of,
        created: message.type === 'container-child-created',
        key: message.key,
        family: message.structure_family ?? '',
        specs: message.specs,
        metadata: message.metadata,
        structure: message.data_sources?.[0]?.structure ?? null,
      });
    case 'table-data':
      return rows(of, message);
    case 'array-data':
    case 'array-ref':
      return block(of, message);
    case 'thinned':
      skipped.set(path, (skipped.get(path) ?? 0) + message.skipped);
      return;
    case 'live':
    case 'ended':
    case 'deleted':
      return tell({ kind: message.type, ...of, detail: message.reason ?? '' });
    case 'gap':
      return tell({ kind: 'gap', ...of, first: message.first, last: message.last, reason: message.reason });
    case 'error':
      return tell({ kind: 'error', ...of, status: message.status, detail: message.detail });
  }
}

const skipped = new Map<string, number>();

function rows(of: { id: number; path: string }, message: Message): void {
  let decoded;
  try {
    decoded = message.payload ? columnsOf(message.payload as Uint8Array) : { count: Number(message.rows ?? 0), columns: {} };
  } catch (error) {
    // What cannot be read here is missing here: the page reads it in another way, and says so.
    return tell({ kind: 'gap', ...of, first: message.sequence, last: message.sequence, reason: `unreadable: ${error}` });
  }
  const { count, columns } = decoded;
  tell({ kind: 'rows', ...of, count, columns, whole: !message.append, partition: message.partition, sequence: message.sequence, time: timeOf(message) });
}

function block(of: { id: number; path: string }, message: Message): void {
  const isReference = message.type === 'array-ref';
  const event: BlockEvent = {
    kind: 'block',
    ...of,
    cells: null as Numbers | null,
    shape: isReference ? (message.patch?.shape ?? message.shape) : message.shape,
    offset: isReference ? (message.patch?.offset ?? null) : message.offset,
    block: message.block ?? null,
    full: isReference ? message.shape : null,
    reference: isReference,
    sequence: message.sequence,
    time: timeOf(message),
    skipped: skipped.get(of.path) ?? 0,
  };
  skipped.delete(of.path);
  const type = types.get(of.path);
  const bytes = message.payload as Uint8Array | undefined;
  const isFrame = event.shape.length > 1;
  const key = `${of.id} ${of.path}`;
  const before = lastBlocks.get(key);
  if (isFrame && before && reaches(event) >= reaches(before)) {
    // The newer frame takes the place of the older one, which nobody has seen.
    event.skipped += before.skipped + 1;
    raw.delete(before);
    events.splice(events.indexOf(before), 1);
  }
  if (bytes && isNumeric(type)) raw.set(event, { type: type!, bytes });
  if (isFrame) lastBlocks.set(key, event);
  tell(event);
}

/** The wire tells UTC, without saying so. */
const timeOf = (message: Message): number => Date.parse(`${message.timestamp}Z`) || 0;

/** Up to where along the first axis an update goes. */
function reaches(event: BlockEvent): number {
  return (event.offset?.[0] ?? 0) + (event.shape[0] ?? 0);
}

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  switch (data.op) {
    case 'connect':
      return link.connect(data.base, data.credentials);
    case 'disconnect':
      return link.disconnect();
    case 'subscribe':
      return link.subscribe(data.id, data.path, data.options);
    case 'unsubscribe':
      return link.unsubscribe(data.id);
    case 'decode':
      return decodeFor(data.token, data.bytes);
    case 'taken':
      isUnderWay = false;
      return plan();
  }
};

self.addEventListener('online', () => link.hurry());
