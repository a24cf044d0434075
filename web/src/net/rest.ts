/** Requests to the API, with the credentials of this tab. A 401 opens the sign-in; an answer that is late is asked again. */

import { signal } from '@preact/signals';
import type { Credentials } from '../wire/messages';
import { API, takeKeyFromLink } from './address';

export class HttpError extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

interface Kept {
  key?: string;
  access?: string;
  refresh?: string;
  who?: string;
}

const PLACE = `tiled_stream ${API}`;

const given = takeKeyFromLink();
if (given) sessionStorage.setItem(PLACE, JSON.stringify({ key: given } satisfies Kept));

const kept = signal<Kept | null>(JSON.parse(sessionStorage.getItem(PLACE) ?? 'null'));
/** Why somebody has to sign in; null: nobody has to. */
export const signIn = signal<string | null>(null);
export const whoIsHere = (): string | null => (kept.value ? (kept.value.who ?? 'API key') : null);

export function keep(value: Kept | null): void {
  kept.value = value;
  if (value) sessionStorage.setItem(PLACE, JSON.stringify(value));
  else sessionStorage.removeItem(PLACE);
}

export function credentials(): Credentials | null {
  if (kept.value?.key) return { api_key: kept.value.key };
  return kept.value?.access ? { access_token: kept.value.access } : null;
}

function headers(): Record<string, string> {
  const { api_key: key, access_token: token } = credentials() ?? {};
  return key ? { Authorization: `Apikey ${key}` } : token ? { Authorization: `Bearer ${token}` } : {};
}

/** A token for tokens: shown with the cookie's token, as forged requests could not. */
export async function refreshed(): Promise<boolean> {
  if (!kept.value?.refresh) return false;
  const csrf = /(?:^|; )tiled_csrf=([^;]+)/.exec(document.cookie)?.[1] ?? '';
  const answer = await fetch(`${API}/auth/session/refresh`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'x-csrf': csrf },
    body: JSON.stringify({ refresh_token: kept.value.refresh }),
  });
  if (!answer.ok) return false;
  const tokens = await answer.json();
  keep({ ...kept.value, access: tokens.access_token, refresh: tokens.refresh_token });
  return true;
}

async function request(place: string, accept: string): Promise<Response> {
  const url = place.startsWith('http') ? place : `${API}${place}`;
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch(url, { headers: { ...headers(), Accept: accept }, credentials: 'same-origin' });
    if (answer.ok) return answer;
    if (answer.status === 503 && attempt < 4) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * Number(answer.headers.get('Retry-After') ?? 1)));
      continue;
    }
    if (answer.status === 401 && attempt === 0 && (await refreshed())) continue;
    const body = await answer.json().catch(() => null);
    const detail = typeof body?.detail === 'string' ? body.detail : answer.statusText;
    if (answer.status === 401) signIn.value = kept.value ? detail : '';
    throw new HttpError(answer.status, detail);
  }
}

export async function getJson(place: string): Promise<any> {
  return (await request(place, 'application/json')).json();
}

export async function getBytes(place: string, accept: string): Promise<Uint8Array> {
  return new Uint8Array(await (await request(place, accept)).arrayBuffer());
}

/** Download by a header, so that no key stands in a URL. */
export async function download(place: string, name: string): Promise<void> {
  const blob = await (await request(place, '*/*')).blob();
  const anchor = document.createElement('a');
  anchor.href = URL.createObjectURL(blob);
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
}

/** Is it a key of this server? Asked before it is kept. */
export async function tryKey(key: string): Promise<void> {
  const answer = await fetch(`${API}/metadata/?fields=`, { headers: { Authorization: `Apikey ${key}` }, credentials: 'omit' });
  if (answer.status === 401) throw new HttpError(401, String((await answer.json()).detail));
  keep({ key });
}

export async function logIn(endpoint: string, username: string, password: string): Promise<void> {
  const answer = await fetch(endpoint, {
    method: 'POST',
    body: new URLSearchParams({ grant_type: 'password', username, password }),
  });
  const body = await answer.json();
  if (!answer.ok) throw new HttpError(answer.status, String(body.detail));
  keep({ access: body.access_token, refresh: body.refresh_token, who: body.identity?.id ?? username });
}
