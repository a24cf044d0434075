/** The page's end of the worker: subscriptions with handlers, and what the status strip shows, as signals. */

import { signal } from '@preact/signals';
import type { Cells, Credentials, LinkState, NodeLevelEvent, Options, Post, ToWorker } from './messages';

declare const WORKER: string;

export type Handler = (event: NodeLevelEvent) => void;

export const link = signal<{ state: LinkState; detail: string; retryAt: number }>({ state: 'off', detail: '', retryAt: 0 });
/** Figures since the page was opened; `lag` in ms from the record's time to its arrival here. */
export const traffic = { messages: 0, bytes: 0, lag: NaN, sequence: 0, reconnects: 0, dropped: 0 };

/** A record came that is no replay: how old it is tells how far behind we are. */
export function arrived({ time, sequence }: { time: number; sequence: number }): void {
  traffic.sequence = sequence;
  if (time) traffic.lag = Math.max(0, Date.now() - time);
}

const handlers = new Map<number, Handler>();
let nextId = 1;
let wasLive = false;

const decoding = new Map<number, (decoded: NonNullable<Post['decoded']>) => void>();

const worker = new Worker(new URL(`./${WORKER}`, import.meta.url), { type: 'module' });
const say = (message: ToWorker): void => worker.postMessage(message);

worker.onmessage = ({ data }: MessageEvent<Post>) => {
  if (data.decoded) {
    decoding.get(data.decoded.token)?.(data.decoded);
    decoding.delete(data.decoded.token);
    return;
  }
  traffic.messages += data.messages;
  traffic.bytes += data.bytes;
  for (const event of data.events) {
    if (event.kind === 'state') {
      link.value = { state: event.state, detail: event.detail, retryAt: event.retryIn ? Date.now() + event.retryIn : 0 };
      if (event.state === 'live') {
        if (wasLive) traffic.reconnects += 1;
        wasLive = true;
      }
    } else {
      if (event.kind === 'block') traffic.dropped += event.skipped;
      handlers.get(event.id)?.(event);
    }
  }
  say({ op: 'taken' });
};

export function connect(base: string, credentials: Credentials | null): void {
  say({ op: 'connect', base, credentials });
}

/** Returns what ends it. */
export function subscribe(path: string[], options: Options, handler: Handler): () => void {
  const id = nextId++;
  handlers.set(id, handler);
  say({ op: 'subscribe', id, path, options });
  return () => {
    handlers.delete(id);
    say({ op: 'unsubscribe', id });
  };
}

/** The columns of an Arrow file. */
export function decodeTable(bytes: Uint8Array): Promise<{ count: number; columns: Record<string, Cells> }> {
  const token = nextId++;
  return new Promise((resolve, reject) => {
    decoding.set(token, (decoded) => (decoded.error ? reject(new Error(decoded.error)) : resolve(decoded)));
    worker.postMessage({ op: 'decode', token, bytes } satisfies ToWorker, [bytes.buffer as ArrayBuffer]);
  });
}
