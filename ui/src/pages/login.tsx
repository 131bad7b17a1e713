// The door: a token, or the provider that the configuration names.

import { useEffect, useRef, useState } from 'preact/hooks';
import { ask, Problem, url } from '../api';
import { Note } from '../parts/basic';
import { Brand } from '../parts/icons';
import { expectSession, look } from '../session';

interface Ways {
  token: boolean;
  oidc: { name: string } | null;
  known: boolean;
}

/** Why the provider's answer opened nothing, by the code that came back with the browser. */
function refusal(): string | null {
  const code = new URLSearchParams(location.search).get('refused');
  switch (code) {
    case null:
      return null;
    case 'role_missing':
      return 'The identity provider knows you, but you have no role here. Whoever runs this process can give you one.';
    case 'provider_unavailable':
      return 'The identity provider cannot be reached now. Try again, or use a token.';
    case 'login_limited':
      return 'Too many attempts did not work. Try again in a minute.';
    default:
      return 'The login did not work. Begin it again.';
  }
}

export function Login() {
  const [ways, setWays] = useState<Ways>({ token: true, oidc: null, known: false });
  const [problem, setProblem] = useState<Problem | null>(null);
  const [refused] = useState(refusal);
  const [isBusy, setBusy] = useState(false);
  const token = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = 'Sign in · Rhumb';
    // The address is not to say for ever that something was refused.
    if (location.search !== '') history.replaceState(null, '', location.pathname + location.hash);
    ask<Ways>('/login').then(
      (found) => {
        setWays(found);
        if (!found.known) return;
        // A certificate needs no form.
        expectSession();
        void look();
      },
      () => {},
    );
    token.current?.focus();
  }, []);
  const submit = async () => {
    setBusy(true);
    setProblem(null);
    try {
      await ask('/login', { method: 'POST', body: { token: token.current?.value.trim() ?? '' } });
      expectSession();
      await look();
    } catch (error) {
      if (error instanceof Problem) setProblem(error);
      token.current?.select();
    } finally {
      setBusy(false);
    }
  };
  return (
    <main class="login">
      <form
        class="card"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <div>
          <h1 class="brand">
            <Brand />
            Rhumb
          </h1>
        </div>
        {refused && !problem && <Note level="critical">{refused}</Note>}
        {problem && (
          <Note level="critical">
            {problem.code === 'credentials_invalid' ? 'This token opens nothing here.' : problem.message}
          </Note>
        )}
        {ways.oidc && (
          <a class="button first" href={url('/login/oidc', { return: location.pathname })} onClick={expectSession}>
            Sign in with {ways.oidc.name}
          </a>
        )}
        {ways.token && (
          <>
            <label class="field">
              Token
              <input ref={token} type="password" name="token" autocomplete="current-password" required class="mono" />
            </label>
            <button type="submit" class={`button ${ways.oidc ? '' : 'first'}`} disabled={isBusy}>
              {isBusy ? 'Signing in…' : 'Sign in'}
            </button>
            <p class="muted small">
              The process wrote its token to a file when it began, and its log says where. People and programs with
              less to say get tokens of their own by <code>rhumb token admin create --role viewer</code>.
            </p>
          </>
        )}
      </form>
    </main>
  );
}
