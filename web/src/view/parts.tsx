/** Small things that several screens use. */

import { effect } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';

/** An effect of signals that begins anew when `inputs` are others: what it closes over is always that of the last drawing. */
export function useLive(run: () => void, inputs: unknown[]): void {
  useEffect(() => effect(run), inputs);
}

export function Button(props: {
  onClick: () => void;
  title?: string;
  isOn?: boolean;
  class?: string;
  disabled?: boolean;
  children: ComponentChildren;
}) {
  return (
    <button
      type="button"
      class={`button ${props.class ?? ''}`}
      title={props.title}
      disabled={props.disabled}
      aria-pressed={props.isOn}
      onClick={props.onClick}
    >
      {props.children}
    </button>
  );
}

export function Select(props: { label: string; value: string; options: [value: string, text: string][]; onChange: (value: string) => void }) {
  return (
    <label class="field">
      <span>{props.label}</span>
      <select aria-label={props.label} value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        {props.options.map(([value, text]) => (
          <option key={value} value={value} selected={value === props.value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <strong>{title}</strong>
      <p>{children}</p>
    </div>
  );
}

/** Something is said for two seconds after it was done. */
export function CopyButton({ text, children, title }: { text: () => string; children: ComponentChildren; title: string }) {
  const [said, say] = useState('');
  useEffect(() => {
    const timer = setTimeout(() => say(''), 2000);
    return () => clearTimeout(timer);
  }, [said]);
  const copy = (): void => {
    copied(text()).then(
      () => say('Copied'),
      () => say('Not allowed'),
    );
  };
  return (
    <Button onClick={copy} title={title}>
      <span aria-live="polite">{said || children}</span>
    </Button>
  );
}

async function copied(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Without TLS a page has no clipboard but this.
  const area = document.createElement('textarea');
  area.value = text;
  document.body.append(area);
  area.select();
  const isDone = document.execCommand('copy');
  area.remove();
  if (!isDone) throw new Error('The browser does not allow it.');
}

/** Numbers as people read them. */
export function short(value: unknown, digits = 5): string {
  if (typeof value !== 'number') return value === null || value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e7) ? value.toExponential(digits - 2) : String(Number(value.toPrecision(digits)));
}

export function span(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '';
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return minutes < 1440 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

export function moment(seconds: number): string {
  const time = new Date(seconds * 1000);
  const isToday = time.toDateString() === new Date().toDateString();
  const clock = time.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
  return isToday ? clock : `${time.toISOString().slice(0, 10)} ${clock.slice(0, 5)}`;
}
