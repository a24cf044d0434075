/** The strip at the foot: is this live, how far behind, was anything left out. */

import { computed, signal, useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Opened, Stream } from '../net/opened';
import { whoIsHere } from '../net/rest';
import { link, traffic } from '../wire/client';
import { shownFrames } from './image';
import { frameStats } from '../data/frames';

const now = signal(0);
setInterval(() => (now.value = Date.now()), 500);

export const linkWords = computed(() => {
  const { state, retryAt } = link.value;
  if (state === 'live') return 'connected';
  if (state === 'reconnecting') {
    const seconds = Math.ceil((retryAt - now.value) / 1000);
    return seconds > 0 ? `reconnecting in ${seconds} s` : 'reconnecting';
  }
  return state === 'refused' ? 'sign in' : state === 'off' ? 'offline' : 'connecting';
});

function words(opened: Opened | null, stream: Stream | null): { text: string; kind: string } {
  if (link.value.state !== 'live') return { text: linkWords.value, kind: link.value.state };
  if (!opened || !stream) return { text: 'connected', kind: 'live' };
  const feeds = opened.feedsOf(stream);
  const behind = feeds.filter((feed) => feed.state.value === 'replaying' || feed.state.value === 'reading');
  if (behind.length) {
    const [at, of] = [behind.reduce((n, { at: k }) => n + k, 0), behind.reduce((n, { goal }) => n + goal, 0)];
    return { text: of ? `catching up ${Math.min(at, of)} of ${of}` : 'catching up', kind: 'connecting' };
  }
  const isOver = opened.isOver.value || !!opened.entry.value?.metadata.stop || (feeds.length > 0 && feeds.every((feed) => feed.state.value === 'ended'));
  return isOver ? { text: 'ended', kind: 'ended' } : { text: 'live', kind: 'live' };
}

export function Status({ opened, stream, version }: { opened: Opened | null; stream: Stream | null; version: string }) {
  const tick = useSignal(0);
  useEffect(() => {
    const timer = setInterval(() => (tick.value += 1), 500);
    return () => clearInterval(timer);
  }, []);
  tick.value;
  const { text, kind } = words(opened, stream);
  const feeds = opened && stream ? opened.feedsOf(stream) : [];
  const lastArrival = Math.max(0, ...feeds.map((feed) => feed.lastArrival));
  const silent = lastArrival ? (Date.now() - lastArrival) / 1000 : 0;
  const sequence = Math.max(0, ...feeds.map(({ at }) => at)) || traffic.sequence;
  const skipped = shownFrames.current?.skipped ?? 0;
  const who = whoIsHere();
  return (
    <footer class="status">
      <span class={`state ${kind}`} role="status">
        {text}
      </span>
      {kind === 'live' && silent > 5 && <span title="The run is open, but nothing comes">silent for {Math.round(silent)} s</span>}
      {traffic.lag >= 0 && <span title="From the record's time on the server to its arrival here">lag {traffic.lag < 1000 ? `${Math.round(traffic.lag)} ms` : `${(traffic.lag / 1000).toFixed(1)} s`}</span>}
      {sequence > 0 && <span title="Sequence of the newest record">seq {sequence}</span>}
      {feeds.some(({ gaps }) => gaps > 0) && <span title="The log had let go of the beginning; it was read from storage">history read from storage</span>}
      {skipped > 0 && <span title="Frames that came faster than they could be shown">{skipped} frames skipped</span>}
      {traffic.reconnects > 0 && <span title="Connections that were lost and resumed">{traffic.reconnects} reconnects</span>}
      <span class="grow" />
      <span title={`Longest drawing ${frameStats.longestDrawMs.toFixed(1)} ms`}>{(traffic.bytes / 1e6).toFixed(1)} MB</span>
      {who && <span>{who}</span>}
      <span>{version}</span>
    </footer>
  );
}
