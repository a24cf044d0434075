/**
 * The data of one node as they grow: rows of a table, cells of a one-dimensional array.
 *
 * The log replays what it still has. What it let go is read over HTTP, and joined to the stream where the two overlap: no row is
 * missing, none comes twice. A feed lives while somebody shows it.
 */

import { signal } from '@preact/signals';
import { Column, locate, Rows } from '../data/columns';
import { arrived, decodeTable, subscribe } from '../wire/client';
import { cellsOf } from '../wire/cells';
import type { BlockEvent, Cells, DataType, NodeLevelEvent, RowsEvent } from '../wire/messages';
import { urlOf } from './address';
import { getBytes } from './rest';

export type FeedState = 'replaying' | 'reading' | 'live' | 'ended';

const ARROW = 'application/vnd.apache.arrow.file';

export abstract class Feed {
  /** Counts up with what arrives. */
  readonly version = signal(0);
  readonly state = signal<FeedState>('replaying');
  readonly error = signal('');
  /** Sequence reached, and the head when the replay began. */
  at = 0;
  goal = 0;
  lastArrival = 0;
  gaps = 0;
  private leave: () => void;

  constructor(
    readonly path: string[],
    start: number | null,
  ) {
    this.leave = subscribe(path, { start }, (event) => this.heard(event));
  }

  stop(): void {
    this.leave();
  }

  protected abstract read(): Promise<void>;
  protected abstract take(event: RowsEvent | BlockEvent): void;
  protected abstract isEmpty(): boolean;

  protected isReading = false;
  private wasRead = false;

  private heard(event: NodeLevelEvent): void {
    switch (event.kind) {
      case 'subscribed':
        this.goal = event.head ?? 0;
        if (!this.wasRead && this.isAbsolute()) this.reread();
        return;
      case 'rows':
      case 'block':
        this.at = event.sequence;
        if (this.state.value === 'live') arrived(event);
        this.lastArrival = Date.now();
        this.take(event);
        this.version.value += 1;
        return;
      case 'gap':
        this.gaps += 1;
        this.reread();
        return;
      case 'live':
        if (!this.isReading) this.state.value = 'live';
        if (this.isEmpty() && !this.wasRead) this.reread();
        return;
      case 'ended':
      case 'deleted':
        this.state.value = 'ended';
        if (this.isEmpty() && !this.wasRead) this.reread();
        return;
      case 'error':
        // What has no stream (a column, an item of a file) can be read all the same.
        this.state.value = 'ended';
        if (!this.wasRead) this.reread();
    }
  }

  /** Updates say where they belong, so reading and streaming may overlap as they like. */
  protected isAbsolute(): boolean {
    return false;
  }

  protected reread(): void {
    if (this.isReading) return;
    const after = this.state.value === 'ended' ? 'ended' : 'live';
    this.isReading = this.wasRead = true;
    this.state.value = 'reading';
    this.read()
      .then(
        () => (this.error.value = ''),
        (error: Error) => (this.error.value = error.message),
      )
      .finally(() => {
        this.isReading = false;
        if (this.state.value === 'reading') this.state.value = after;
        this.version.value += 1;
      });
  }
}

export class TableFeed extends Feed {
  readonly rows = new Rows();
  private waiting: RowsEvent[] = [];
  /** After a read: is it still open where the stream joins? */
  private isToJoin = false;
  private toSkip = 0;

  constructor(path: string[]) {
    super(path, 0);
  }

  protected isEmpty(): boolean {
    return this.rows.count === 0;
  }

  protected take(event: RowsEvent): void {
    if (this.isReading) this.waiting.push(event);
    else this.apply(event);
  }

  private apply({ count, columns, whole, partition }: RowsEvent): void {
    if (whole) {
      this.isToJoin = false;
      if (partition) return this.reread();
      this.rows.clear();
      return this.rows.append(count, columns);
    }
    if (this.isToJoin && count > 0) {
      const place = locate(this.rows, columns, count);
      this.toSkip = place < 0 ? 0 : this.rows.count - place;
      this.isToJoin = false;
    }
    const skip = Math.min(this.toSkip, count);
    this.toSkip -= skip;
    this.rows.append(count - skip, skip ? from(columns, skip) : columns);
  }

  protected async read(): Promise<void> {
    try {
      const { count, columns } = await decodeTable(await getBytes(`/table/full/${urlOf(this.path)}?format=${ARROW}`, ARROW));
      this.rows.clear();
      this.rows.append(count, columns);
      this.isToJoin = true;
      this.toSkip = 0;
    } finally {
      const waiting = this.waiting;
      this.waiting = [];
      for (const event of waiting) this.apply(event);
    }
  }
}

function from(columns: Record<string, Cells>, skip: number): Record<string, Cells> {
  return Object.fromEntries(Object.entries(columns).map(([name, cells]) => [name, cells.slice(skip) as Cells]));
}

/** A one-dimensional array of numbers. */
export class ArrayFeed extends Feed {
  readonly column = new Column();

  constructor(
    path: string[],
    private readonly structure: { data_type: DataType; chunks: number[][]; shape: number[] },
  ) {
    super(path, null);
  }

  protected isEmpty(): boolean {
    return false;
  }

  protected override isAbsolute(): boolean {
    return true;
  }

  protected take(event: BlockEvent): void {
    if (!event.cells) return this.reread();
    const at = event.block ? (event.block[0] ?? 0) * (this.structure.chunks[0]?.[0] ?? 0) : (event.offset?.[0] ?? 0);
    this.column.write(at, event.cells);
  }

  protected async read(): Promise<void> {
    const type = 'application/octet-stream';
    const bytes = await getBytes(`/array/full/${urlOf(this.path)}`, type);
    this.column.write(0, cellsOf(this.structure.data_type, bytes));
  }
}
