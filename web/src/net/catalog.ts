/**
 * What lies in the container that is shown, newest first, and what is created there while we look.
 *
 * A list that was asked for before the subscription stood is asked for again when it does, so that nothing falls between the two.
 * With a filter the server decides what belongs here: a new child makes the list be asked again.
 */

import { effect, signal } from '@preact/signals';
import { subscribe } from '../wire/client';
import type { NodeLevelEvent, Spec } from '../wire/messages';
import { parameter, pathOf, urlOf } from './address';
import { getJson } from './rest';
import { filtersOf } from './search';

export interface Entry {
  key: string;
  path: string[];
  family: string;
  specs: Spec[];
  metadata: Record<string, any>;
  structure: any;
  /** Came while we looked: slides in. */
  fresh: boolean;
}

export const entries = signal<Entry[]>([]);
/** How many there are in all; may be a lower bound. */
export const total = signal(0);
export const listError = signal('');
export const isListing = signal(false);

const PAGE = 50;
const FIELDS = '&fields=metadata&fields=structure_family&fields=specs&fields=structure';
let cursor: string | null = null;
let generation = 0;
let path: string[] = [];
let timer = 0;
/** Does the subscription stand? And was a list asked for before it did? */
let isFollowing = false;
let isEarly = false;

/** The last edit of a child of the container that is shown. */
export const edited = signal<{ path: string; metadata: Record<string, any>; specs: Spec[] } | null>(null);

export const isRun = (entry: { specs: Spec[] }): boolean => entry.specs.some(({ name }) => name === 'BlueskyRun');

export function entryOf(id: string, parent: string[], attributes: any, fresh = false): Entry {
  return {
    key: id,
    path: [...parent, id],
    family: attributes.structure_family,
    specs: attributes.specs ?? [],
    metadata: attributes.metadata ?? {},
    structure: attributes.structure ?? null,
    fresh,
  };
}

function query(): string {
  const { filters, errors } = filtersOf(parameter('q').value ?? '');
  listError.value = errors.join('; ');
  return filters.map(([name, value]) => `&${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join('');
}

async function list(offset: number): Promise<void> {
  const mine = generation;
  isEarly ||= !isFollowing;
  isListing.value = true;
  try {
    const from = cursor && offset ? cursor : '';
    const answer = await getJson(`/search/${urlOf(path)}?sort=-&page[limit]=${PAGE}${from || `&page[offset]=${offset}`}${FIELDS}${query()}`);
    if (mine !== generation) return;
    const found: Entry[] = answer.data.map((item: any) => entryOf(item.id, path, item.attributes));
    const next = answer.links?.next ? new URL(answer.links.next).searchParams : null;
    cursor = next ? ['cursor', 'offset'].map((n) => [n, next.get(`page[${n}]`)]).flatMap(([n, v]) => (v ? [`&page[${n}]=${v}`] : []))[0] ?? null : null;
    merge(found, offset === 0);
    total.value = Math.max(answer.meta?.count ?? 0, entries.value.length);
  } catch (error) {
    if (mine === generation) listError.value = String((error as Error).message);
  } finally {
    if (mine === generation) isListing.value = false;
  }
}

/** New ones replace what is known of them; those that came live stay on top. */
function merge(found: Entry[], isFirst: boolean): void {
  if (!isFirst) {
    const known = new Set(entries.value.map(({ key }) => key));
    entries.value = [...entries.value, ...found.filter(({ key }) => !known.has(key))];
    return;
  }
  const listed = new Set(found.map(({ key }) => key));
  const isFiltered = !!parameter('q').value;
  const fresh = new Set(entries.value.filter((entry) => entry.fresh).map(({ key }) => key));
  const ahead = isFiltered ? [] : entries.value.filter((entry) => entry.fresh && !listed.has(entry.key));
  entries.value = [...ahead, ...found.map((entry) => ({ ...entry, fresh: fresh.has(entry.key) }))];
}

export function more(): void {
  if (!isListing.value && cursor) list(entries.value.length);
}

export const hasMore = (): boolean => cursor !== null;

function again(): void {
  clearTimeout(timer);
  timer = setTimeout(() => list(0), 150) as unknown as number;
}

function heard(event: NodeLevelEvent): void {
  if (event.kind === 'subscribed') {
    isFollowing = true;
    if (isEarly) {
      isEarly = false;
      cursor = null;
      generation += 1;
      list(0);
    }
    return;
  }
  if (event.kind === 'gap' || event.kind === 'ended') return again();
  if (event.kind === 'error') {
    // What has no children that come and go is listed all the same.
    return;
  }
  if (event.kind !== 'child') return;
  if (!event.created) {
    edited.value = { path: [...path, event.key].join('/'), metadata: event.metadata, specs: event.specs };
    entries.value = entries.value.map((entry) =>
      entry.key === event.key ? { ...entry, metadata: event.metadata, specs: event.specs } : entry,
    );
    if (parameter('q').value) again();
    return;
  }
  if (parameter('q').value) return again();
  const attributes = { structure_family: event.family, specs: event.specs, metadata: event.metadata, structure: event.structure };
  const entry = entryOf(event.key, path, attributes, true);
  entries.value = [entry, ...entries.value.filter(({ key }) => key !== event.key)];
  total.value += 1;
}

/** Follow the address: another container, another filter, another list. */
export function startCatalog(): void {
  let leave: (() => void) | null = null;
  effect(() => {
    const next = pathOf(parameter('at').value);
    generation += 1;
    path = next;
    entries.value = [];
    cursor = null;
    isFollowing = isEarly = false;
    leave?.();
    leave = subscribe(next, { start: null }, heard);
  });
  effect(() => {
    parameter('at').value;
    parameter('q').value;
    cursor = null;
    generation += 1;
    list(0);
  });
}

