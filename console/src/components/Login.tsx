// The sign-in: a button that leads to the identity provider, or a field for a token.
import { useState } from 'preact/hooks';
import { login, loginError, signInWithToken } from '../auth.ts';
import { config } from '../config.ts';
import { texts } from '../strings.ts';
import { Button, TextField } from './controls.tsx';
import { Banner } from './feedback.tsx';

export function Login() {
  const [token, setToken] = useState('');
  const error = loginError.value && <Banner tone="bad">{loginError.value}</Banner>;
  if (config.mode === 'oidc') {
    return (
      <>
        {error}
        <Button tone="primary" onClick={() => void login()}>{texts.login.button}</Button>
      </>
    );
  }
  return (
    <form
      class="stack"
      onSubmit={(event) => {
        event.preventDefault();
        if (token.trim() !== '') signInWithToken(token.trim());
      }}
    >
      {error}
      <TextField class="fill" label={texts.login.token} type="password" value={token} onInput={setToken} hint={texts.login.tokenHint} />
      <Button tone="primary" type="submit">{texts.login.button}</Button>
    </form>
  );
}
