/** Metadata as a tree that can be searched, with what is different from the run before. */

import { useSignal } from '@preact/signals';
import { go, parameter } from '../net/address';
import type { Opened } from '../net/opened';
import { previousOf } from './plot';
import { Button, CopyButton, Empty } from './parts';

type Tree = Record<string, unknown>;

const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Always different from run to run. */
const OBVIOUS = new Set(['uid', 'time', 'scan_id', 'run_start', 'timestamp', 'timestamps']);

export function MetaView({ opened }: { opened: Opened }) {
  const search = useSignal('');
  const entry = opened.entry.value;
  opened.streams.value; // streams and their configuration appear later
  const before = previousOf(entry);
  const isDiff = parameter('diff').value === '1' && before !== null;
  if (!entry) return <Empty title="Reading …" />;
  const whole: Tree = { ...entry.metadata };
  for (const stream of opened.streams.value) {
    if (stream.path.length > entry.path.length) whole[`stream ${stream.name}`] = stream.metadata;
  }
  const word = search.value.toLowerCase();
  return (
    <div class="plot">
      <div class="bar">
        <input
          class="search"
          type="search"
          placeholder="Find a key or a value"
          aria-label="Find in metadata"
          value={search.value}
          onInput={(event) => (search.value = event.currentTarget.value)}
        />
        <Button isOn={isDiff} disabled={!before} onClick={() => go({ diff: isDiff ? null : '1' })} title="Only what the previous run of this plan had otherwise">
          differences to {before ? `#${before.metadata.start?.scan_id ?? before.key.slice(0, 8)}` : 'the previous run'}
        </Button>
        <span class="grow" />
        <CopyButton text={() => JSON.stringify(entry.metadata, null, 2)} title="Copy the metadata as JSON">
          copy JSON
        </CopyButton>
      </div>
      <div class="tree" tabIndex={0} role="region" aria-label="Metadata">
        {isDiff ? <Differences now={entry.metadata} then={before!.metadata} word={word} /> : <Branch tree={whole} depth={0} word={word} place="" />}
      </div>
    </div>
  );
}

function Branch({ tree, depth, word, place }: { tree: Tree; depth: number; word: string; place: string }) {
  const keys = Object.keys(tree).filter((key) => !word || contains(key, tree[key], word));
  if (!keys.length) return <p class="note">{word ? 'Nothing found.' : 'None.'}</p>;
  return (
    <ul>
      {keys.map((key) => {
        const value = tree[key];
        const at = place ? `${place}.${key}` : key;
        const inner = word && key.toLowerCase().includes(word) ? '' : word;
        return (
          <li key={key}>
            {isTree(value) && Object.keys(value).length ? (
              <details open={depth < 1 || !!word}>
                <summary>
                  {key} <span class="count">{Object.keys(value).length}</span>
                </summary>
                <Branch tree={value} depth={depth + 1} word={inner} place={at} />
              </details>
            ) : (
              <>
                <span class="key" title={at}>
                  {key}
                </span>
                <code>{leaf(key, value)}</code>
              </>
            )}
          </li>
        );
      })}
    </ul>
  );
}

function contains(key: string, value: unknown, word: string): boolean {
  if (key.toLowerCase().includes(word)) return true;
  if (isTree(value)) return Object.entries(value).some(([k, v]) => contains(k, v, word));
  return JSON.stringify(value ?? null).toLowerCase().includes(word);
}

function leaf(key: string, value: unknown): string {
  if (key === 'time' && typeof value === 'number') return `${value} (${new Date(value * 1000).toLocaleString()})`;
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function flat(tree: Tree, place = '', into = new Map<string, string>()): Map<string, string> {
  for (const [key, value] of Object.entries(tree)) {
    const at = place ? `${place}.${key}` : key;
    if (isTree(value)) flat(value, at, into);
    else if (!OBVIOUS.has(key)) into.set(at, typeof value === 'string' ? value : JSON.stringify(value));
  }
  return into;
}

function Differences({ now, then, word }: { now: Tree; then: Tree; word: string }) {
  const here = flat(now);
  const there = flat(then);
  const keys = [...new Set([...here.keys(), ...there.keys()])].filter((key) => here.get(key) !== there.get(key) && (!word || key.toLowerCase().includes(word)));
  if (!keys.length) return <p class="note">The same, but for identifiers and times.</p>;
  return (
    <table class="differences">
      <thead>
        <tr>
          <th>key</th>
          <th>previous</th>
          <th>this</th>
        </tr>
      </thead>
      <tbody>
        {keys.map((key) => (
          <tr key={key}>
            <td>{key}</td>
            <td class="was">{there.get(key) ?? '—'}</td>
            <td class="is">{here.get(key) ?? '—'}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
