/**
 * The connection that outlives its sockets: what is subscribed is subscribed again, each node from where it stood.
 *
 * What must stay true: a node's cursor moves with the message that is handed on, so that after a reconnect nothing is missing and
 * nothing comes twice. 1000 is for good; 4001 and 4003 wait for other credentials; all else comes back after a pause.
 */

import type { Connect, Wire } from './many';
import type { Credentials, Listed, Message, Options, StateEvent } from './messages';

const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 10_000;

interface Wanted {
  path: string[];
  options: Options;
  /** Relative path of a node → last sequence that was handed on. */
  cursors: Map<string, number>;
  epoch: string | null;
  /** Number of a node on this connection → its relative path. */
  names: Map<number, string>;
  /** Relative path → head when it was announced: where a node stands that had nothing to replay. */
  heads: Map<string, number>;
  over: boolean;
}

export interface LinkHandlers {
  onState(event: StateEvent): void;
  /** `name` is the path of the node below the subscription, joined by "/"; "" is the node that was addressed. */
  onMessage(id: number, path: string[], name: string, message: Message): void;
  onBytes(bytes: number): void;
}

export class Link {
  private wire: Wire | null = null;
  private wanted = new Map<number, Wanted>();
  private pause = FIRST_PAUSE;
  private timer = 0;
  private isOpen = false;
  private base = '';
  private credentials: Credentials | null = null;

  constructor(
    private readonly handlers: LinkHandlers,
    private readonly connectTo: Connect,
  ) {}

  connect(base: string, credentials: Credentials | null): void {
    this.disconnect();
    this.base = base;
    this.credentials = credentials;
    this.pause = FIRST_PAUSE;
    this.open();
  }

  disconnect(): void {
    clearTimeout(this.timer);
    this.wire?.close();
    this.wire = null;
    this.isOpen = false;
  }

  subscribe(id: number, path: string[], options: Options): void {
    const wanted: Wanted = { path, options, cursors: new Map(), epoch: null, names: new Map([[0, '']]), heads: new Map(), over: false };
    this.wanted.set(id, wanted);
    if (this.isOpen) this.ask(id, wanted);
  }

  unsubscribe(id: number): void {
    const wanted = this.wanted.get(id);
    this.wanted.delete(id);
    if (wanted && !wanted.over && this.isOpen) this.wire?.send({ type: 'unsubscribe', id });
  }

  /** Try again now: the browser says that the network is back. */
  hurry(): void {
    if (this.wire || !this.base) return;
    clearTimeout(this.timer);
    this.pause = FIRST_PAUSE;
    this.open();
  }

  private open(): void {
    this.state('connecting', '');
    const wire = this.connectTo(this.base, this.credentials, {
      onOpen: () => {
        if (wire !== this.wire) return;
        this.isOpen = true;
        this.state('live', '');
        for (const [id, wanted] of this.wanted) if (!wanted.over) this.ask(id, wanted);
      },
      onListed: (listed, bytes) => {
        if (wire !== this.wire) return;
        this.pause = FIRST_PAUSE;
        this.handlers.onBytes(bytes);
        this.listed(listed);
      },
      onClose: (code, reason) => {
        if (wire !== this.wire) return;
        this.wire = null;
        this.isOpen = false;
        if (code === 4001 || code === 4003) this.state('refused', reason);
        else this.later(code, reason);
      },
    });
    this.wire = wire;
  }

  private later(code: number, reason: string): void {
    const pause = this.pause * (0.7 + 0.6 * Math.random());
    this.pause = Math.min(2 * this.pause, LONGEST_PAUSE);
    this.timer = setTimeout(() => this.open(), pause) as unknown as number;
    this.state('reconnecting', reason || `connection lost (${code})`, pause);
  }

  private state(state: StateEvent['state'], detail: string, retryIn = 0): void {
    this.handlers.onState({ kind: 'state', state, detail, retryIn });
  }

  private ask(id: number, wanted: Wanted): void {
    const isResumed = wanted.cursors.size > 0;
    wanted.names = new Map([[0, '']]);
    this.wire?.send({
      type: 'subscribe',
      id,
      path: wanted.path,
      ...wanted.options,
      // Nodes that appeared meanwhile are not named by a cursor: they come from their first record on.
      start: isResumed && wanted.options.subtree ? 0 : wanted.options.start,
      ...(isResumed ? { cursors: Object.fromEntries(wanted.cursors) } : {}),
      ...(wanted.epoch === null ? {} : { epoch: wanted.epoch }),
    });
  }

  private listed([id, node, message]: Listed): void {
    const wanted = this.wanted.get(id);
    if (!wanted || wanted.over) return;
    const name = message.type === 'node' ? this.named(wanted, node, message) : wanted.names.get(node);
    if (name === undefined) return;
    const known = wanted.cursors.get(name);
    if (message.type === 'subscribed') {
      wanted.epoch = message.epoch ?? null;
      if (known === undefined && typeof message.from === 'number') wanted.cursors.set(name, message.from - 1);
    } else if (message.type === 'gap') {
      wanted.cursors.set(name, Math.max(known ?? 0, message.last));
    } else if (typeof message.sequence === 'number') {
      if (known !== undefined && message.sequence <= known) return;
      wanted.cursors.set(name, message.sequence);
    } else if (message.type === 'live') {
      const head = wanted.heads.get(name);
      if (known === undefined && head !== undefined) wanted.cursors.set(name, head);
    } else if (message.type === 'error' || (node === 0 && (message.type === 'ended' || message.type === 'deleted'))) {
      wanted.over = true;
    }
    this.handlers.onMessage(id, wanted.path, name, message);
  }

  private named(wanted: Wanted, node: number, message: Message): string {
    const name = (message.path as string[]).slice(wanted.path.length).join('/');
    wanted.names.set(node, name);
    if (typeof message.head === 'number') wanted.heads.set(name, message.head);
    return name;
  }
}
