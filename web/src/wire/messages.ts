/**
 * What is said between the server, the worker and the page.
 *
 * The worker speaks to the server (many nodes on one socket, see docs/protocol.md) and hands the page events that are decoded
 * already. Nodes are named by their absolute path, joined by "/": numbers of a connection do not outlive it, paths do.
 */

export interface DataType {
  kind: string;
  itemsize: number;
  endianness: string;
  fields?: unknown[];
}

/** One message of a stream, as it came: schema, update, notice. */
export type Message = { type: string; [name: string]: any };

/** Every server message: subscription, node within it, message. */
export type Listed = [number, number, Message];

export interface Spec {
  name: string;
  version: string | null;
}

export interface Credentials {
  api_key?: string;
  access_token?: string;
}

/** What the page may ask of a subscription. `start` null: only what comes. */
export interface Options {
  start: number | null;
  subtree?: boolean;
  payload?: boolean;
  max_hz?: number;
  slice?: string;
}

export type ToWorker =
  | { op: 'connect'; base: string; credentials: Credentials | null }
  | { op: 'disconnect' }
  | { op: 'subscribe'; id: number; path: string[]; options: Options }
  | { op: 'unsubscribe'; id: number }
  | { op: 'decode'; token: number; bytes: Uint8Array }
  | { op: 'taken' };

export type LinkState = 'off' | 'connecting' | 'live' | 'reconnecting' | 'refused';

export interface StateEvent {
  kind: 'state';
  state: LinkState;
  detail: string;
  /** Milliseconds until the next attempt. */
  retryIn: number;
}

/** Of one node within a subscription. */
interface Of {
  id: number;
  path: string;
}

export interface NodeEvent extends Of {
  kind: 'node';
  family: string;
  specs: Spec[];
  metadata: Record<string, any>;
  structure: any;
  head: number | null;
}

export interface SubscribedEvent extends Of {
  kind: 'subscribed';
  head: number | null;
  from: number | null;
  epoch: string | null;
}

/** A child of a container was created or edited. */
export interface ChildEvent extends Of {
  kind: 'child';
  created: boolean;
  key: string;
  family: string;
  specs: Spec[];
  metadata: Record<string, any>;
  structure: any;
}

export type Cells = Float64Array | unknown[];

export interface RowsEvent extends Of {
  kind: 'rows';
  count: number;
  /** Without `payload`: none. */
  columns: Record<string, Cells>;
  /** Replaces what was there (a table that was written whole). */
  whole: boolean;
  partition: number | null;
  sequence: number;
  /** When it was recorded, ms since 1970. */
  time: number;
}

export type Numbers = Float64Array | Float32Array | Int32Array | Uint32Array | Int16Array | Uint16Array | Int8Array | Uint8Array;

/** Cells of an array; `cells` is null where only the shape was asked for, or where they are to be fetched (`reference`). */
export interface BlockEvent extends Of {
  kind: 'block';
  cells: Numbers | null;
  shape: number[];
  offset: number[] | null;
  block: number[] | null;
  /** The whole shape after this, where it is told. */
  full: number[] | null;
  reference: boolean;
  sequence: number;
  time: number;
  /** How many updates this one stands for beside itself. */
  skipped: number;
}

export interface MarkEvent extends Of {
  kind: 'live' | 'ended' | 'deleted';
  detail: string;
}

export interface GapEvent extends Of {
  kind: 'gap';
  first: number;
  last: number;
  reason: string;
}

export interface ErrorEvent {
  kind: 'error';
  id: number;
  path: string;
  status: number;
  detail: string;
}

export type NodeLevelEvent = NodeEvent | SubscribedEvent | ChildEvent | RowsEvent | BlockEvent | MarkEvent | GapEvent | ErrorEvent;
export type FromWorker = StateEvent | NodeLevelEvent;

/** What one post of the worker holds: events in order, and figures of what was received. */
export interface Post {
  events: FromWorker[];
  messages: number;
  bytes: number;
  /** Answers a `decode`; such a post is not to be taken. */
  decoded?: { token: number; count: number; columns: Record<string, Cells>; error?: string };
}
