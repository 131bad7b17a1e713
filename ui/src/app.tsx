// The frame of all pages: who looks, navigation, what is on.

import { Component, type ComponentChildren, type ComponentType } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { whenUnknown } from './api';
import { span } from './format';
import { health, link, process } from './live';
import { PAGES } from './pages';
import { Access } from './pages/access';
import { Apis } from './pages/apis';
import { Certificates } from './pages/certificates';
import { Configuration } from './pages/configuration';
import { Consumers } from './pages/consumers';
import { Login } from './pages/login';
import { Overview } from './pages/overview';
import { Proxies } from './pages/proxies';
import { RoutePage, Routes } from './pages/routes';
import { ServicePage, Services } from './pages/services';
import { Tap } from './pages/tap';
import { Topology } from './pages/topology';
import { Empty, Head } from './parts/basic';
import { Brand, Icon } from './parts/icons';
import { Palette, palette } from './parts/palette';
import { href, place, type Place } from './router';
import { leave, look, signOut, who } from './session';
import { choice, choose, theme } from './theme';
import { Toasts } from './toast';

export interface PageProps {
  place: Place;
}

export function App() {
  const now = who.use();
  useEffect(() => {
    whenUnknown(leave);
    void look();
  }, []);
  switch (now.is) {
    case 'unknown':
      return <div aria-busy="true" role="status" aria-label="Loading" />;
    case 'stranger':
      return <Login />;
    case 'away':
      return (
        <main class="login">
          <div class="card">
            <h1 class="hidden-text">Rhumb</h1>
            <Empty
              title={now.problem.status === 0 ? 'No answer' : 'The dashboard cannot begin'}
              icon="alert"
              action={
                <button type="button" class="button" onClick={() => void look()}>
                  Try again
                </button>
              }
            >
              {now.problem.message}
            </Empty>
          </div>
        </main>
      );
    case 'known':
      return <Frame />;
  }
}

function Frame() {
  const here = place.use();
  const [isMenuOpen, setMenu] = useState(false);
  const main = useRef<HTMLElement>(null);
  const first = here.path[0] ?? '';
  const wasAt = useRef(here.path.join('/'));

  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      const typing = (event.target as Element | null)?.closest('input, textarea, select, [contenteditable]');
      if ((event.key === 'k' && (event.ctrlKey || event.metaKey)) || (event.key === '/' && !typing && !event.ctrlKey)) {
        event.preventDefault();
        palette.set(!palette.now());
      }
    };
    addEventListener('keydown', keys);
    return () => removeEventListener('keydown', keys);
  }, []);

  useEffect(() => {
    setMenu(false);
    const at = here.path.join('/');
    if (at === wasAt.current) return;
    wasAt.current = at;
    // Where a reader and the keyboard go on after a page has changed.
    scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [here]);

  return (
    <div class="shell">
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to content
      </a>
      <Side isOpen={isMenuOpen} current={first} />
      <div>
        <Top onMenu={() => setMenu(!isMenuOpen)} />
        <main id="main" ref={main} tabIndex={-1}>
          <Whole key={first}>
            <Current here={here} />
          </Whole>
        </main>
      </div>
      <Palette onSignOut={() => void signOut()} />
      <Toasts />
    </div>
  );
}

/** A page that cannot be shown leaves the others usable. */
class Whole extends Component<{ children: ComponentChildren }, { error: unknown }> {
  override state = { error: null };

  override componentDidCatch(error: unknown): void {
    // For whoever mends it.
    console.error(error);
    this.setState({ error });
  }

  override render() {
    if (this.state.error === null) return this.props.children;
    return (
      <>
        <Head title="Something went wrong" />
        <Empty
          title="This page cannot be shown"
          icon="alert"
          action={
            <button type="button" class="button" onClick={() => location.reload()}>
              Load it again
            </button>
          }
        >
          It was told something that it does not understand. The process itself is not concerned.
        </Empty>
      </>
    );
  }
}

const ROUTES: Record<string, ComponentType<PageProps>> = {
  '': Overview,
  topology: Topology,
  tap: Tap,
  routes: Routes,
  services: Services,
  consumers: Consumers,
  apis: Apis,
  certificates: Certificates,
  proxies: Proxies,
  configuration: Configuration,
  access: Access,
};

function Current({ here }: { here: Place }) {
  const [first = '', second] = here.path;
  if (first === 'services' && second !== undefined) return <ServicePage place={here} name={second} key={second} />;
  if (first === 'routes' && second !== undefined) return <RoutePage place={here} id={second} key={second} />;
  const Page = ROUTES[first];
  if (Page === undefined) {
    return (
      <>
        <Head title="No such page" />
        <Empty
          title="There is no such page"
          action={
            <a class="button" href={href([])}>
              To the overview
            </a>
          }
        >
          The address may be from another version.
        </Empty>
      </>
    );
  }
  return <Page place={here} />;
}

function Side({ isOpen, current }: { isOpen: boolean; current: string }) {
  const wrong = health.use();
  const now = who.use();
  const count = wrong?.checks.length ?? 0;
  const chosen = choice.use();
  const look = theme.use();
  const next = look === 'dark' ? 'light' : 'dark';
  return (
    <div class={`side ${isOpen ? 'open' : ''}`}>
      <a class="brand" href={href([])}>
        <Brand />
        Rhumb
      </a>
      <nav aria-label="Pages">
        {(['Now', 'Traffic', 'System'] as const).map((group) => (
          <div key={group}>
            <h2 id={`group-${group}`}>{group}</h2>
            <ul aria-labelledby={`group-${group}`}>
              {PAGES.filter((page) => page.group === group).map((page) => (
                <li key={page.title}>
                  <a href={href(page.path)} aria-current={(page.path[0] ?? '') === current ? 'page' : undefined}>
                    <Icon name={page.icon} />
                    {page.title}
                    {page.path.length === 0 && count > 0 && (
                      <span class={`badge ${wrong?.level ?? ''}`}>
                        {count}
                        <span class="hidden-text"> {count === 1 ? 'thing is' : 'things are'} wrong</span>
                      </span>
                    )}
                  </a>
                </li>
              ))}
            </ul>
          </div>
        ))}
      </nav>
      <div class="foot">
        {now.is === 'known' && (
          <div class="row apart">
            <span class="cut" title={`${now.session.name}, ${now.session.role}`}>
              {now.session.name === now.session.role ? now.session.name : `${now.session.name} · ${now.session.role}`}
            </span>
            <span class="row">
              <button
                type="button"
                class="button plain icon"
                aria-label={`Use the ${next} theme`}
                title={`Use the ${next} theme${chosen === 'system' ? '' : ' (the palette has the theme of the system)'}`}
                onClick={() => choose(next)}
              >
                <Icon name={look === 'dark' ? 'sun' : 'moon'} />
              </button>
              <button type="button" class="button plain icon" aria-label="Sign out" title="Sign out" onClick={() => void signOut()}>
                <Icon name="out" />
              </button>
            </span>
          </div>
        )}
      </div>
    </div>
  );
}

const LINK = {
  opening: ['connecting', 'The page connects to the process.'],
  live: ['live', 'The process tells by itself what changes.'],
  asking: ['every 5 s', 'The page asks every five seconds: there is no stream of events.'],
  lost: ['no answer', 'The process does not answer; what is shown is the last that was known.'],
} as const;

function Top({ onMenu }: { onMenu: () => void }) {
  const now = process.use();
  const state = link.use();
  const [text, why] = LINK[state];
  return (
    <header class="top">
      <button type="button" class="button plain icon menu-button" aria-label="Menu" onClick={onMenu}>
        <Icon name="menu" />
      </button>
      <button type="button" class="search" onClick={() => palette.set(true)}>
        <Icon name="search" />
        Search
        <kbd aria-hidden="true">/</kbd>
      </button>
      <div class="facts">
        {now && (
          <>
            <span class="far">{now.kind === 'control' ? 'control plane' : now.kind}</span>
            {now.state !== 'ready' && <span class="pill warning">{now.state}</span>}
            <span class="far">
              version <b>{now.version}</b>
            </span>
            <span>
              revision <b class="tn">{now.revision}</b>
            </span>
            <span class="far">
              up <b class="tn">{span(now.uptimeSeconds)}</b>
            </span>
          </>
        )}
        <span class={`live live-${state}`} title={why} role="status">
          <i />
          {text}
        </span>
      </div>
    </header>
  );
}
