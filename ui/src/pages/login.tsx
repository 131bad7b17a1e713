// The door: a token, or the provider that the configuration names.

import { useEffect, useRef, useState } from 'preact/hooks';
import { ask, Problem, url } from '../api';
import { Note } from '../parts/basic';
import { Brand } from '../parts/icons';
import { expectSession, look } from '../session';

interface Ways {
  token: boolean;
  oidc: { name: string } | null;
}

export function Login() {
  const [ways, setWays] = useState<Ways>({ token: true, oidc: null });
  const [problem, setProblem] = useState<Problem | null>(null);
  const [isBusy, setBusy] = useState(false);
  const token = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = 'Sign in · Rhumb';
    ask<Ways>('/login').then(setWays, () => {});
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
