/** Sign in, and the list of keys. */

import { signal, useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { API } from '../net/address';
import { logIn, signIn, tryKey } from '../net/rest';

export const isHelpOpen = signal(false);

interface Provider {
  provider: string;
  mode: string;
  links: { auth_endpoint: string };
}

export function SignIn() {
  const dialog = useRef<HTMLDialogElement>(null);
  const providers = useSignal<Provider[]>([]);
  const error = useSignal('');
  const why = signIn.value;
  useEffect(() => {
    if (why === null) return dialog.current?.close();
    if (!dialog.current?.open) dialog.current?.showModal();
    fetch(`${API}/`)
      .then((answer) => answer.json())
      .then((about) => (providers.value = (about.authentication?.providers ?? []).filter((p: Provider) => p.mode === 'internal' || p.mode === 'password')))
      .catch(() => (providers.value = []));
    return undefined;
  }, [why]);
  /** Everything is asked anew by who has signed in. */
  const enter = (attempt: Promise<void>): void => {
    attempt.then(
      () => location.reload(),
      (failure: Error) => (error.value = failure.message),
    );
  };
  const withKey = (event: SubmitEvent): void => {
    event.preventDefault();
    const key = String(new FormData(event.currentTarget as HTMLFormElement).get('key')).trim();
    if (/^[A-Za-z0-9]+$/.test(key)) enter(tryKey(key));
    else error.value = 'A key consists of letters and digits.';
  };
  const withPassword = (event: SubmitEvent): void => {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement);
    enter(logIn(providers.value[0]!.links.auth_endpoint, String(given.get('username')), String(given.get('password'))));
  };
  return (
    <dialog ref={dialog} aria-labelledby="sign-in-title" onCancel={(event) => event.preventDefault()}>
      <h2 id="sign-in-title">Sign in</h2>
      {(error.value || why) && (
        <p class="warning" role="alert">
          {error.value || why}
        </p>
      )}
      {providers.value.length > 0 && (
        <form onSubmit={withPassword}>
          <label>
            User
            <input name="username" autocomplete="username" required />
          </label>
          <label>
            Password
            <input name="password" type="password" autocomplete="current-password" required />
          </label>
          <button type="submit" class="button strong">
            Sign in
          </button>
          <hr />
        </form>
      )}
      <form onSubmit={withKey}>
        <label>
          API key
          <input name="key" type="password" autocomplete="off" required autofocus />
        </label>
        <button type="submit" class="button strong">
          Use this key
        </button>
      </form>
      <p class="note">It is kept for this tab only. A link may bring it: ?api_key=…</p>
    </dialog>
  );
}

const KEYS: [string, string][] = [
  ['/', 'search'],
  ['j  k', 'next, previous run'],
  ['n', 'follow the newest run'],
  ['1 2 3 4', 'plot, images, table, metadata'],
  ['space', 'pause, follow'],
  ['l', 'logarithmic'],
  ['a', 'whole range, levels by themselves'],
  ['b', 'previous run behind this one'],
  ['[  ]', 'frame before, frame after'],
  ['i', 'invert colours'],
  ['c', 'copy as Python'],
  ['d', 'dark, light'],
  ['?', 'these keys'],
];

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (isHelpOpen.value) dialog.current?.showModal();
    else dialog.current?.close();
  }, [isHelpOpen.value]);
  return (
    <dialog ref={dialog} class="help" aria-labelledby="help-title" onClose={() => (isHelpOpen.value = false)} onClick={() => (isHelpOpen.value = false)}>
      <h2 id="help-title">Keys</h2>
      <dl>
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </dialog>
  );
}
