import { render } from 'preact';
import { App } from './app.tsx';
import { startSession } from './auth.ts';
import { loadConfig } from './config.ts';
import { watchConnection } from './connection.ts';
import { startRevalidation } from './data.ts';
import { startRouter } from './router.ts';
import { startShortcuts } from './shortcuts.ts';
import { renderOnSignals } from './signals.ts';
import { texts } from './strings.ts';

const root = document.getElementById('app');
if (root) {
  try {
    await loadConfig();
    await startSession();
    startRouter();
    startShortcuts();
    startRevalidation();
    watchConnection();
    renderOnSignals();
    render(<App />, root);
  } catch {
    root.textContent = texts.offline;
  }
}
