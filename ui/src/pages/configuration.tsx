// Documents in force, their history, and changes: written, checked, looked at, applied, live, rolled back.

import { useEffect, useState } from 'preact/hooks';
import { ask, Problem } from '../api';
import { plural } from '../format';
import { process } from '../live';
import type { PageProps } from '../app';
import { Ago, Card, Empty, Failed, Filter, Head, Loaded, Note, Pill, Rich, Tabs, Waiting } from '../parts/basic';
import { Diff } from '../parts/diff';
import { Icon } from '../parts/icons';
import { useResource } from '../resource';
import { go, href } from '../router';
import { may } from '../session';
import { say } from '../toast';
import type { Change, Diagnostic, Difference, Doc, Documents, Revision } from '../types';
import type * as Yaml from '../yaml';

type YamlOf = typeof Yaml;

/** YAML is fetched when it is needed first. */
function useYaml(): YamlOf | null {
  const [yaml, set] = useState<YamlOf | null>(null);
  useEffect(() => {
    void import('../yaml').then((loaded) => set(loaded));
  }, []);
  return yaml;
}

export function Configuration({ place }: PageProps) {
  const tab = place.path[1] ?? 'documents';
  const documents = useResource<Documents>('/documents', () => ask('/documents'), { every: 20, on: ['documents'] });
  const own = process.use();
  const isStore = documents.data?.owner === 'store';
  return (
    <>
      <Head
        title="Configuration"
        end={
          isStore && may('editor') ? (
            <a class="button" href={href(['configuration', 'new'])}>
              New document
            </a>
          ) : undefined
        }
      >
        {documents.data && (
          <>
            Revision {documents.data.revision}, {plural(documents.data.documents.length, 'document')}.
          </>
        )}
      </Head>
      {documents.data && !isStore && (
        <Note>
          Read only here: these documents are owned by files{own?.documents.path ? <> (<code>{own.documents.path}</code>)</> : null}, and
          a change made here would be undone by the next one there. Edit the file: it is live as soon as it is saved.
        </Note>
      )}
      {own?.lastAttempt?.refused && (
        <Note level="critical">
          <p>The last change was refused <Ago at={own.lastAttempt.at} />, the one before stays in force: {own.lastAttempt.refused}</p>
          {own.lastAttempt.diagnostics.slice(0, 6).map((line) => (
            <code style={{ display: 'block' }} key={line}>{line}</code>
          ))}
        </Note>
      )}
      <Tabs
        current={tab === 'new' ? 'documents' : tab}
        tabs={[
          { id: 'documents', text: 'Documents', href: href(['configuration']) },
          { id: 'history', text: 'History', href: href(['configuration', 'history']) },
          { id: 'compiled', text: 'Compiled', href: href(['configuration', 'compiled']) },
        ]}
      />
      {tab === 'history' ? (
        <History at={place.path[2]} />
      ) : tab === 'compiled' ? (
        <Compiled />
      ) : (
        <Loaded of={documents}>
          {(data) => (
            <div class="split">
              <Tree of={data} place={place} />
              {tab === 'new' ? (
                <Editor key="new" current={null} revision={data.revision} onDone={() => void documents.reload()} />
              ) : (
                <One of={data} place={place} onChange={() => void documents.reload()} />
              )}
            </div>
          )}
        </Loaded>
      )}
    </>
  );
}

const keyOf = (document: Doc): [string, string, string] => [
  document.kind ?? '?',
  document.metadata?.namespace ?? '-',
  document.metadata?.name ?? '?',
];

function Tree({ of, place }: { of: Documents; place: PageProps['place'] }) {
  const text = (place.query.get('q') ?? '').toLowerCase();
  const current = place.path.slice(2).join('/');
  const kinds = new Map<string, [string, string, string][]>();
  for (const { document } of of.documents) {
    const key = keyOf(document);
    if (!key.join('/').toLowerCase().includes(text)) continue;
    kinds.set(key[0], [...(kinds.get(key[0]) ?? []), key]);
  }
  return (
    <div class="card">
      <div style={{ padding: '10px 10px 4px', display: 'flex' }}>
        <Filter value={place.query.get('q') ?? ''} label="Filter documents" />
      </div>
      <nav class="tree" aria-label="Documents" tabIndex={0}>
        {[...kinds].sort(([a], [b]) => a.localeCompare(b)).map(([kind, keys]) => (
          <div key={kind}>
            <h3>{kind}</h3>
            {keys
              .sort((a, b) => a.join('/').localeCompare(b.join('/'), 'en', { numeric: true }))
              .map((key) => (
                <a
                  href={href(['configuration', 'documents', ...key], { q: place.query.get('q') })}
                  aria-current={current === key.join('/') ? 'page' : undefined}
                  key={key.join('/')}
                >
                  <span class="cut">{key[2]}</span>
                  {key[1] !== '-' && <span class="muted small" style={{ marginLeft: 'auto' }}>{key[1]}</span>}
                </a>
              ))}
          </div>
        ))}
        {kinds.size === 0 && <p class="muted" style={{ padding: '10px' }}>{text ? 'No document fits.' : 'No documents.'}</p>}
      </nav>
    </div>
  );
}

function One({ of, place, onChange }: { of: Documents; place: PageProps['place']; onChange: () => void }) {
  const [kind, namespace, name] = place.path.slice(2);
  const [isEditing, setEditing] = useState(false);
  const yaml = useYaml();
  const path = `${kind}/${namespace}/${name}`;
  useEffect(() => setEditing(false), [path]);
  const fits = ({ document }: Documents['documents'][number]) => {
    const key = keyOf(document);
    // A document that names no namespace is in the default one.
    return key[0] === kind && key[2] === name && (key[1] === namespace || (key[1] === '-' && namespace === 'default'));
  };
  const found = of.documents.find(fits);
  if (kind === undefined) {
    return (
      <section class="card">
        <Empty title={of.documents.length === 0 ? 'No documents yet' : 'Choose a document'} icon="configuration">
          {of.owner === 'store'
            ? 'A change is checked and shown as a difference before anybody is told of it.'
            : 'Documents stand on the left as they are in force, with the place that they were written at.'}
        </Empty>
      </section>
    );
  }
  if (found === undefined) {
    return (
      <section class="card">
        <Empty title="There is no such document">It may have been taken out since.</Empty>
      </section>
    );
  }
  if (yaml === null) return <Waiting />;
  const text = yaml.written(found.document);
  if (isEditing) {
    return (
      <Editor
        key={path}
        current={found.document}
        revision={of.revision}
        onDone={onChange}
        onLeave={() => setEditing(false)}
      />
    );
  }
  return (
    <Card
      title={`${kind} ${name}`}
      end={
        <>
          {found.revision !== null && (
            <a class="link" href={href(['configuration', 'history', String(found.revision)])}>
              since revision {found.revision}
            </a>
          )}
          {found.origin && <code class="muted">{found.origin}</code>}
          {of.owner === 'store' && found.owner === 'files' && <span class="muted small">changed in its file</span>}
          {found.owner === 'store' && may('editor') && (
            <button type="button" class="button first" onClick={() => setEditing(true)}>
              Edit
            </button>
          )}
        </>
      }
    >
      <pre class="text" tabIndex={0} aria-label={`${kind} ${name} as YAML`}>
        {text}
      </pre>
    </Card>
  );
}

type Stage =
  | { is: 'writing' }
  | { is: 'checking' }
  | { is: 'review'; differences: Difference[]; revision: number; removes: boolean }
  | { is: 'applying' }
  | { is: 'applied'; revision: Revision };

const STAGES = ['Write', 'Review', 'Live'] as const;

/** Write → check → look at what differs → apply → see it live. */
function Editor({
  current,
  revision,
  onDone,
  onLeave,
}: {
  current: Doc | null;
  revision: number;
  onDone: () => void;
  onLeave?: () => void;
}) {
  const yaml = useYaml();
  const [text, setText] = useState<string | null>(null);
  const [message, setMessage] = useState('');
  const [stage, setStage] = useState<Stage>({ is: 'writing' });
  const [problem, setProblem] = useState<Problem | null>(null);
  const [diagnostics, setDiagnostics] = useState<Diagnostic[]>([]);
  const [based] = useState(revision);
  if (yaml === null) return <Waiting />;
  const was = yaml.written(current);
  const value = text ?? (current === null ? NEW : was);
  const name = current === null ? 'New document' : keyOf(current).join(' ');

  const check = async (removes: boolean) => {
    setProblem(null);
    setDiagnostics([]);
    if (removes && current !== null) {
      setStage({ is: 'review', differences: [{ document: keyOf(current).join('/'), before: current, after: null }], revision: based, removes });
      return;
    }
    const read = yaml.parsed(value);
    if ('mistake' in read) {
      const { line, column, text: what } = read.mistake;
      setDiagnostics([{ code: 'yaml', level: 'error', file: null, line, column, what, why: null, fix: null }]);
      return;
    }
    setStage({ is: 'checking' });
    try {
      const checked = await ask<{ valid: boolean; diagnostics: Diagnostic[] }>('/validate', {
        method: 'POST',
        body: { yaml: value },
      });
      setDiagnostics(checked.diagnostics);
      if (!checked.valid) {
        setStage({ is: 'writing' });
        return;
      }
      const answer = await ask<{ revision: number; differences: Difference[] }>('/documents', {
        method: 'POST',
        query: { dryRun: true },
        body: { documents: [read.document] },
      });
      setStage({ is: 'review', differences: answer.differences, revision: answer.revision, removes: false });
    } catch (error) {
      setStage({ is: 'writing' });
      if (error instanceof Problem) setProblem(error);
      else throw error;
    }
  };

  const apply = async (reviewed: Extract<Stage, { is: 'review' }>) => {
    setStage({ is: 'applying' });
    setProblem(null);
    try {
      let made: Revision;
      if (reviewed.removes && current !== null) {
        const [kind, namespace, of] = keyOf(current).map(encodeURIComponent);
        made = await ask<Revision>(`/documents/${kind}/${namespace}/${of}`, { method: 'DELETE' });
      } else {
        const read = yaml.parsed(value);
        if ('mistake' in read) return;
        made = await ask<Revision>('/documents', {
          method: 'POST',
          body: { documents: [read.document], message },
          ifMatch: reviewed.revision,
        });
      }
      say(`Revision ${made.revision} is in force`);
      setStage({ is: 'applied', revision: made });
      onDone();
    } catch (error) {
      setStage(reviewed);
      if (error instanceof Problem) setProblem(error);
      else throw error;
    }
  };

  const step = stage.is === 'writing' || stage.is === 'checking' ? 0 : stage.is === 'review' || stage.is === 'applying' ? 1 : 2;
  return (
    <Card
      title={name}
      end={
        <ol class="row" aria-label="Steps">
          {STAGES.map((one, at) => (
            <li key={one} aria-current={at === step ? 'step' : undefined}>
              <Pill level={at === step ? 'info' : at < step ? 'ok' : ''}>
                {at < step && <Icon name="check" />}
                {one}
              </Pill>
            </li>
          ))}
        </ol>
      }
    >
      <div class="stack" aria-live="polite">
        {problem && <Mistakes of={problem} />}
        {diagnostics.length > 0 && stage.is !== 'applied' && <Diagnostics of={diagnostics} />}
        {(stage.is === 'writing' || stage.is === 'checking') && (
          <>
            <textarea
              class="editor"
              aria-label={`${name} as YAML`}
              rows={Math.min(30, Math.max(14, value.split('\n').length + 1))}
              value={value}
              spellcheck={false}
              autocapitalize="off"
              onInput={(event) => setText(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void check(false);
              }}
            />
            <div class="row apart">
              <div class="row">
                <button type="button" class="button first" disabled={stage.is === 'checking' || value === was} onClick={() => void check(false)}>
                  {stage.is === 'checking' ? 'Checking…' : 'Check and review'}
                </button>
                {onLeave && (
                  <button type="button" class="button plain" onClick={onLeave}>
                    Leave as it was
                  </button>
                )}
              </div>
              {current !== null && (
                <button type="button" class="button plain danger" onClick={() => void check(true)}>
                  Take this document out
                </button>
              )}
            </div>
          </>
        )}
        {(stage.is === 'review' || stage.is === 'applying') && (
          <>
            <Differences of={stage.is === 'review' ? stage.differences : []} yaml={yaml} />
            {stage.is === 'review' && stage.differences.length === 0 && <Note>It says the same as what is in force: no revision comes of it.</Note>}
            <label class="field">
              Why, for the history
              <input value={message} maxLength={200} onInput={(event) => setMessage(event.currentTarget.value)} />
            </label>
            <div class="row">
              <button
                type="button"
                class="button first"
                disabled={stage.is === 'applying' || stage.differences.length === 0}
                onClick={() => stage.is === 'review' && void apply(stage)}
              >
                {stage.is === 'applying' ? 'Applying…' : 'Apply'}
              </button>
              <button type="button" class="button plain" disabled={stage.is === 'applying'} onClick={() => setStage({ is: 'writing' })}>
                Back to writing
              </button>
            </div>
          </>
        )}
        {stage.is === 'applied' && (
          <>
            <Audience revision={stage.revision.revision} />
            <div class="row">
              <a class="button" href={href(['configuration', 'history', String(stage.revision.revision)])}>
                Revision {stage.revision.revision} in the history
              </a>
              {onLeave && (
                <button type="button" class="button plain" onClick={onLeave}>
                  Done
                </button>
              )}
            </div>
          </>
        )}
      </div>
    </Card>
  );
}

/** Mistakes and warnings that are shown. */
const TOLD = 12;

function Diagnostics({ of }: { of: Diagnostic[] }) {
  const isWrong = of.some((one) => one.level === 'error');
  return (
    <Note level={isWrong ? 'critical' : 'warning'}>
      {of.slice(0, TOLD).map((one) => (
        <p key={`${one.line}${one.what}`}>
          {one.line !== null && `Line ${one.line}, column ${one.column}: `}
          <strong style={{ fontWeight: 600 }}>
            <Rich text={one.what} />
          </strong>
          <Rich text={one.fix ? `; ${one.fix}` : one.why ? `: ${one.why}` : ''} />
        </p>
      ))}
      {of.length > TOLD && <p>and {of.length - TOLD} more</p>}
    </Note>
  );
}

const NEW = `apiVersion: rhumb.dev/v1alpha1
kind: Backend
metadata:
  name: ""
spec:
  endpoints: []
`;

function Mistakes({ of }: { of: Problem }) {
  const more =
    of.code === 'revision_conflict' ? (
      <p>Somebody else made a change meanwhile. Go back to writing and check again: the difference is then from theirs.</p>
    ) : null;
  return (
    <Note level="critical">
      <p>{of.message}</p>
      {more}
      {of.mistakes.length > 0 && (
        <ul>
          {of.mistakes.slice(0, 20).map((mistake) => (
            <li key={mistake}>
              <code style={{ whiteSpace: 'pre-wrap' }}>{mistake}</code>
            </li>
          ))}
        </ul>
      )}
    </Note>
  );
}

function Differences({ of, yaml }: { of: Difference[]; yaml: YamlOf }) {
  return (
    <>
      {of.map((one) => (
        <div class="stack tight" key={one.document}>
          <h3>
            {one.document} <Pill level={one.before === null ? 'ok' : one.after === null ? 'critical' : 'info'}>{one.before === null ? 'added' : one.after === null ? 'removed' : 'changed'}</Pill>
          </h3>
          <Diff before={yaml.written(one.before)} after={yaml.written(one.after)} label={`What differs in ${one.document}`} />
        </div>
      ))}
    </>
  );
}

interface AudienceAnswer {
  revision: number;
  live: number;
  waiting: { proxy: string; state: 'pending' | 'disconnected' | 'refused'; why: string | null }[];
}

/** Who runs a revision: asked again until everybody who is connected has answered. */
function Audience({ revision }: { revision: number }) {
  const [answer, setAnswer] = useState<AudienceAnswer | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    let isGone = false;
    const turn = async () => {
      try {
        const now = await ask<AudienceAnswer>(`/revisions/${revision}/audience`, { query: { waitMs: 5000 } });
        if (isGone) return;
        setAnswer(now);
        if (now.waiting.some((one) => one.state === 'pending')) setTimeout(() => void turn(), 500);
      } catch (error) {
        if (!isGone && error instanceof Problem) setProblem(error);
      }
    };
    void turn();
    return () => {
      isGone = true;
    };
  }, [revision]);
  if (problem) {
    return problem.isElsewhere || problem.code === 'revision_not_known' ? (
      <Note>Revision {revision} is in force. {problem.code === 'revision_not_known' && problem.message}</Note>
    ) : (
      <Failed problem={problem} />
    );
  }
  if (answer === null) return <Note>Revision {revision} is in force here. Waiting for the proxies that it concerns…</Note>;
  const refused = answer.waiting.filter((one) => one.state === 'refused');
  const others = answer.waiting.filter((one) => one.state !== 'refused');
  const level = refused.length > 0 ? 'critical' : others.length > 0 ? 'warning' : 'info';
  return (
    <Note level={level}>
      <strong>
        {answer.live === 0 && answer.waiting.length === 0
          ? `Revision ${revision} is in force; it concerns no proxy.`
          : `Revision ${revision} is live on ${plural(answer.live, 'proxy', 'proxies')}.`}
      </strong>
      {others.slice(0, 5).map((one) => (
        <p key={one.proxy}>
          <code>{one.proxy}</code> {one.state === 'pending' ? 'has not answered yet.' : 'is not connected; it takes it over when it is back.'}
        </p>
      ))}
      {refused.slice(0, 5).map((one) => (
        <p key={one.proxy}>
          <code>{one.proxy}</code> refuses it and keeps the one before: {one.why}
        </p>
      ))}
    </Note>
  );
}

function History({ at }: { at: string | undefined }) {
  const history = useResource<{ revisions: Revision[] }>('/revisions', () => ask('/revisions', { query: { limit: 100 } }), {
    on: ['documents'],
    every: 20,
  });
  return (
    <Loaded of={history}>
      {({ revisions }) => {
        if (revisions.length === 0) {
          return (
            <Card flush>
              <Empty title="No history yet">Each change that comes into force stands here, with who made it and why.</Empty>
            </Card>
          );
        }
        const chosen = revisions.find((one) => String(one.revision) === at) ?? null;
        const latest = revisions[0]?.revision ?? 0;
        return (
          <div class="split">
            <nav class="card tree" aria-label="Revisions" tabIndex={0} style={{ padding: '6px' }}>
              {revisions.map((one) => (
                <a
                  href={href(['configuration', 'history', String(one.revision)])}
                  aria-current={one.revision === chosen?.revision ? 'page' : undefined}
                  style={{ alignItems: 'baseline' }}
                  key={one.revision}
                >
                  <b class="tn">{one.revision}</b>
                  <span class="grow">
                    <span class="cut" style={{ display: 'block' }}>{one.message || summary(one.changes)}</span>
                    <span class="muted small">
                      {one.author}, <Ago at={one.atMs / 1000} />
                    </span>
                  </span>
                  {one.revision === latest && <Pill level="ok">in force</Pill>}
                </a>
              ))}
            </nav>
            {chosen === null ? (
              <section class="card">
                <Empty title="Choose a revision">What it changed, who runs it, and the way back to it stand here.</Empty>
              </section>
            ) : (
              <RevisionView of={chosen} latest={latest} onBack={() => void history.reload()} key={chosen.revision} />
            )}
          </div>
        );
      }}
    </Loaded>
  );
}

const summary = (changes: Change[]) =>
  changes.length === 0 ? 'nothing' : `${changes[0]?.action} ${changes[0]?.document}${changes.length > 1 ? ` and ${changes.length - 1} more` : ''}`;

function RevisionView({ of, latest, onBack }: { of: Revision; latest: number; onBack: () => void }) {
  const yaml = useYaml();
  const [isGoingBack, setGoingBack] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [isBusy, setBusy] = useState(false);
  const own = useResource<{ differences: Difference[] }>(`/diff?${of.revision}`, () =>
    ask('/diff', { query: { from: of.revision - 1, to: of.revision } }),
  );
  const back = useResource<{ differences: Difference[] }>(isGoingBack ? `/diff?back${latest}-${of.revision}` : null, () =>
    ask('/diff', { query: { from: latest, to: of.revision } }),
  );
  const isLatest = of.revision === latest;
  const rollBack = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const made = await ask<Revision>('/rollback', {
        method: 'POST',
        body: { to: of.revision, message: `back to revision ${of.revision}` },
        ifMatch: latest,
      });
      say(`Revision ${made.revision} says what revision ${of.revision} said`);
      onBack();
      go(href(['configuration', 'history', String(made.revision)]));
    } catch (error) {
      if (error instanceof Problem) setProblem(error);
      else throw error;
    } finally {
      setBusy(false);
    }
  };
  return (
    <div class="stack">
      <Card
        title={`Revision ${of.revision}`}
        end={
          <>
            <span>
              {of.author}, <Ago at={of.atMs / 1000} />
            </span>
            {!isLatest && may('editor') && !isGoingBack && (
              <button type="button" class="button" onClick={() => setGoingBack(true)}>
                Roll back to this
              </button>
            )}
          </>
        }
      >
        <div class="stack">
          {of.message && <p>{of.message}</p>}
          {isLatest && <Audience revision={of.revision} />}
          {yaml === null ? (
            <Waiting />
          ) : (
            <Loaded of={own}>{(answer) => (answer.differences.length === 0 ? <p class="muted">It changed nothing.</p> : <Differences of={answer.differences} yaml={yaml} />)}</Loaded>
          )}
        </div>
      </Card>
      {isGoingBack && yaml !== null && (
        <Card title={`What rolling back to revision ${of.revision} changes`}>
          <div class="stack">
            {problem && <Mistakes of={problem} />}
            <Loaded of={back}>{(answer) => (answer.differences.length === 0 ? <Note>It says the same as what is in force.</Note> : <Differences of={answer.differences} yaml={yaml} />)}</Loaded>
            <div class="row">
              <button type="button" class="button first" disabled={isBusy || (back.data?.differences.length ?? 0) === 0} onClick={() => void rollBack()}>
                {isBusy ? 'Rolling back…' : 'Roll back'}
              </button>
              <button type="button" class="button plain" onClick={() => setGoingBack(false)}>
                Leave as it is
              </button>
            </div>
          </div>
        </Card>
      )}
    </div>
  );
}

function Compiled() {
  const plan = useResource<unknown>('/plan', () => ask('/plan'), { on: ['documents'] });
  return (
    <Card title="What the process has made of the documents" end="without secrets">
      <Loaded of={plan}>
        {(data) => (
          <pre class="text" tabIndex={0} aria-label="Compiled configuration as JSON">
            {JSON.stringify(data, null, 2)}
          </pre>
        )}
      </Loaded>
    </Card>
  );
}
