/** The list: newest first, new ones slide in; runs with what matters of them, everything else with its shape. */

import { computed, useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { go, parameter, pathOf } from '../net/address';
import { entries, hasMore, isListing, isRun, listError, more, total, type Entry } from '../net/catalog';
import { signIn } from '../net/rest';
import { activities, hasEnded, isLive } from '../net/live';
import { moment, span } from './parts';

/** What is open: that of the address, or else the newest run. */
export const openPath = computed(() => {
  const named = parameter('run').value;
  if (named) return named;
  const newest = entries.value.find(isRun);
  return newest ? newest.path.join('/') : null;
});

export const isFollowingNewest = computed(() => parameter('run').value === null);

/** Containers of containers are entered, all else is opened. */
export function open(entry: Entry): void {
  const isPlace = entry.family === 'container' && !isRun(entry) && !entry.specs.some(({ name }) => name === 'BlueskyEventStream');
  if (isPlace) go({ at: entry.path.join('/'), run: null, q: null, ...FRESH }, true);
  else go({ run: entry.path.join('/'), ...FRESH }, true);
}

/** What belongs to one run and not to the next. */
const FRESH = { stream: null, x: null, y: null, range: null, pause: null, frame: null, roi: null, levels: null, img: null };

export function step(by: number): void {
  const list = entries.value;
  const at = list.findIndex((entry) => entry.path.join('/') === openPath.value);
  const next = list[Math.max(0, Math.min(list.length - 1, at + by))];
  if (next && next !== list[at]) go({ run: next.path.join('/'), ...FRESH });
}

export function Runs() {
  const end = useRef<HTMLLIElement>(null);
  const clock = useSignal(0);
  useEffect(() => {
    const timer = setInterval(() => (clock.value += 1), 10_000);
    const observer = new IntersectionObserver(([seen]) => seen?.isIntersecting && more());
    observer.observe(end.current!);
    return () => {
      clearInterval(timer);
      observer.disconnect();
    };
  }, []);
  clock.value;
  const list = entries.value;
  const place = pathOf(parameter('at').value);
  return (
    <nav class="runs" aria-label="Runs">
      <div class="find">
        <input
          id="search"
          type="search"
          placeholder="Search runs"
          aria-label="Search runs"
          title="words · plan:scan · scan_id>100 · scan:100-120 · since:24h · status:success · any start key (sample:Ni*)"
          value={parameter('q').value ?? ''}
          onInput={(event) => go({ q: event.currentTarget.value || null })}
        />
        <button
          type="button"
          class="follow"
          aria-pressed={isFollowingNewest.value}
          title="Always show the newest run"
          onClick={() => go({ run: isFollowingNewest.value ? openPath.value : null, ...FRESH })}
        >
          newest
        </button>
      </div>
      {(place.length > 0 || list.some(({ family }) => family === 'container')) && place.length > 0 && (
        <ol class="crumbs" aria-label="Place">
          <li>
            <a href="?" onClick={(event) => enter(event, [])}>
              root
            </a>
          </li>
          {place.map((key, i) => (
            <li key={i}>
              <a href={`?at=${place.slice(0, i + 1).join('/')}`} onClick={(event) => enter(event, place.slice(0, i + 1))}>
                {key}
              </a>
            </li>
          ))}
        </ol>
      )}
      {listError.value && signIn.value === null && (
        <p class="warning" role="alert">
          {listError.value}
        </p>
      )}
      <ul class="list" aria-live="polite" aria-relevant="additions">
        {list.map((entry) => (
          <Item key={entry.key} entry={entry} isOpen={entry.path.join('/') === openPath.value} />
        ))}
        {!list.length && !isListing.value && !listError.value && (
          <li class="note">{parameter('q').value ? 'Nothing matches.' : 'Nothing here yet. New runs appear by themselves.'}</li>
        )}
        <li class="end" ref={end}>
          {hasMore() ? `${list.length} of ${total.value} …` : ''}
        </li>
      </ul>
    </nav>
  );
}

function enter(event: Event, path: string[]): void {
  event.preventDefault();
  go({ at: path.join('/') || null, run: null, q: null, ...FRESH }, true);
}

function Item({ entry, isOpen }: { entry: Entry; isOpen: boolean }) {
  const item = useRef<HTMLLIElement>(null);
  useEffect(() => {
    if (isOpen && !isFollowingNewest.value) item.current?.scrollIntoView({ block: 'nearest' });
  }, [isOpen]);
  return (
    <li ref={item} class={`item ${entry.fresh ? 'fresh' : ''}`} data-key={entry.key}>
      <button type="button" aria-current={isOpen} onClick={() => open(entry)}>
        {isRun(entry) ? <Run entry={entry} /> : <Other entry={entry} />}
      </button>
    </li>
  );
}

function Run({ entry }: { entry: Entry }) {
  const { start = {}, stop } = entry.metadata;
  const activity = activities.value.get(entry.path.join('/'));
  const detail = [start.sample_name ?? sampleOf(start.sample), start.purpose, start.operator].filter((text) => typeof text === 'string' && text);
  return (
    <>
      <span class="line">
        <b>{start.scan_id !== undefined ? `#${start.scan_id}` : entry.key.slice(0, 8)}</b>
        <span class="plan">{start.plan_name ?? ''}</span>
        <Badge entry={entry} />
      </span>
      <span class="line dim">
        <time>{start.time ? moment(start.time) : ''}</time>
        {stop ? (
          <span>
            {span(stop.time - start.time)}
            {stop.num_events?.primary !== undefined && ` · ${stop.num_events.primary} points`}
          </span>
        ) : (
          activity && activity.rate > 0 && <span class="rate">{activity.rate < 10 ? activity.rate.toFixed(1) : Math.round(activity.rate)} points/s</span>
        )}
      </span>
      {detail.length > 0 && <span class="line dim detail">{detail.join(' · ')}</span>}
    </>
  );
}

const sampleOf = (sample: unknown): unknown => (typeof sample === 'object' && sample !== null && 'name' in sample ? sample.name : sample);

export function Badge({ entry }: { entry: Entry }) {
  activities.value;
  if (!isRun(entry)) return null;
  if (!hasEnded(entry)) return isLive(entry) ? <span class="badge live">LIVE</span> : <span class="badge">no end</span>;
  const status = entry.metadata.stop.exit_status;
  return status === 'success' ? (
    <span class="badge done" title="success">
      ✓
    </span>
  ) : (
    <span class="badge failed">{status}</span>
  );
}

function Other({ entry }: { entry: Entry }) {
  const shape: number[] | undefined = entry.structure?.shape;
  const what = shape ? shape.join(' × ') || 'scalar' : entry.structure?.columns ? `${entry.structure.columns.length} columns` : '';
  return (
    <>
      <span class="line">
        <b>{entry.key}</b>
        <span class="plan" />
        {entry.family === 'container' && <span aria-hidden="true">›</span>}
      </span>
      <span class="line dim">
        <span>{entry.specs[0]?.name ?? entry.family}</span>
        <span>{what}</span>
      </span>
    </>
  );
}
