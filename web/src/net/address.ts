/**
 * The address bar is the state of the page: what is seen can be sent to somebody as a link.
 *
 * A key in a link is taken out of it before anything else happens, and kept for this tab only.
 */

import { computed, signal, type ReadonlySignal } from '@preact/signals';

/** Where the page is served, and the API below it; holds under any prefix and behind any proxy. */
export const ROOT = new URL('.', document.baseURI).href.replace(/\/$/, '');
export const API = `${ROOT}/api/v1`;

const parameters = signal(new URLSearchParams(location.search));

export function takeKeyFromLink(): string | null {
  const key = parameters.value.get('api_key');
  if (key === null) return null;
  const rest = new URLSearchParams(parameters.value);
  rest.delete('api_key');
  show(rest, false);
  return key;
}

function show(next: URLSearchParams, push: boolean): void {
  // Slashes, commas and colons may stand as they are in a query; links stay readable.
  const text = next.toString().replaceAll('%2F', '/').replaceAll('%2C', ',').replaceAll('%3A', ':').replaceAll('%3B', ';');
  const url = location.pathname + (text ? `?${text}` : '');
  if (push) history.pushState(null, '', url);
  else history.replaceState(null, '', url);
  parameters.value = next;
}

addEventListener('popstate', () => {
  parameters.value = new URLSearchParams(location.search);
});

const signals = new Map<string, ReadonlySignal<string | null>>();

/** One parameter of the address; null if it is not there. */
export function parameter(name: string): ReadonlySignal<string | null> {
  let found = signals.get(name);
  if (!found) signals.set(name, (found = computed(() => parameters.value.get(name))));
  return found;
}

/** Set parameters; null takes one out. `push`: the way back leads to where we were. */
export function go(changes: Record<string, string | null>, push = false): void {
  const next = new URLSearchParams(parameters.value);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) next.delete(name);
    else next.set(name, value);
  }
  if (next.toString() !== parameters.value.toString()) show(next, push);
}

export const pathOf = (text: string | null): string[] => (text ?? '').split('/').filter(Boolean);
export const urlOf = (path: string[]): string => path.map(encodeURIComponent).join('/');
