import { Component, type ComponentChildren } from 'preact';
import { useEffect } from 'preact/hooks';
import { signedIn } from './auth.ts';
import { Button } from './components/controls.tsx';
import { Banner, Empty } from './components/feedback.tsx';
import { Layout } from './components/Layout.tsx';
import { Login } from './components/Login.tsx';
import { Page } from './components/Page.tsx';
import { onRecovery } from './connection.ts';
import { reloadAll } from './data.ts';
import { pagePath } from './route.ts';
import { address, environmentInAddress, navigate } from './router.ts';
import { pageAt } from './routes.tsx';
import { environment, environments, loadSession, me, sessionError } from './session.ts';
import { texts } from './strings.ts';

export function App() {
  const state = signedIn.value;
  useEffect(() => onRecovery(() => void loadSession()), []);
  useEffect(() => {
    if (!state) return;
    void loadSession();
    // Another person may have signed in.
    void reloadAll();
  }, [state]);
  // After the end of a session, the page keeps its contents.
  if (!state && !me.value) {
    return (
      <main class="login">
        <h1>{texts.login.title}</h1>
        <Login />
      </main>
    );
  }
  return (
    <Layout>
      <Boundary key={address.value.path}>
        <CurrentPage />
      </Boundary>
    </Layout>
  );
}

function CurrentPage() {
  const { path, parts } = address.value;
  const start = path === '/' || path === '/callback';
  useEffect(() => {
    if (start) navigate(pagePath(environment.value, 'flags'), { replace: true });
  }, [path]);
  if (sessionError.value?.status === 403) return <Page title={texts.product}><Banner tone="bad">{texts.mayNotRead}</Banner></Page>;
  if (sessionError.value && !me.value) {
    return (
      <Page title={texts.product}>
        <Banner tone="bad" actions={<Button onClick={() => void loadSession()}>{texts.retry}</Button>}>
          {sessionError.value.message}
        </Banner>
      </Page>
    );
  }
  const env = environmentInAddress.value;
  if (env !== null && environments.value.length > 0 && !environments.value.includes(env)) {
    return <Page title={env}><Empty title={texts.unknownEnvironment(env)} /></Page>;
  }
  return <>{pageAt(parts) ?? (start ? null : <Page title={texts.notFound}>{null}</Page>)}</>;
}

/** A defect of one page leaves the rest of the console usable. */
class Boundary extends Component<{ children: ComponentChildren }, { error: Error | null }> {
  override state: { error: Error | null } = { error: null };

  static override getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <Page title={texts.failed}>
        <Banner tone="bad" actions={<Button onClick={() => this.setState({ error: null })}>{texts.retry}</Button>}>{error.message}</Banner>
      </Page>
    );
  }
}
