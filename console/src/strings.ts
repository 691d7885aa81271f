// All texts of the console. Each page has its own section, so that a page's texts can be read together.

const number = new Intl.NumberFormat('en');

/** `1,240` */
export function count(value: number): string {
  return number.format(value);
}

/** `1 flag`, `1,240 flags` */
export function plural(value: number, one: string, many: string = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export const texts = {
  product: 'Pennon',
  skip: 'Skip to content',
  environment: 'Environment',
  production: 'Production: changes reach real users at once.',
  nav: { flags: 'Flags', activity: 'Activity', compare: 'Compare', cleanup: 'Clean up', keys: 'API keys', settings: 'Settings' },
  navigation: 'Pages',
  palette: 'Commands',
  signOut: 'Sign out',
  signedInAs: (actor: string, roles: string[]) => `${actor} · ${roles.join(', ') || 'no role'}`,
  loading: 'Loading…',
  retry: 'Try again',
  close: 'Close',
  cancel: 'Cancel',
  save: 'Save',
  undo: 'Undo',
  copy: 'Copy',
  copied: 'Copied',
  curl: 'Copy as curl',
  offline: 'The server cannot be reached. Check the network, then try again.',
  trouble: {
    offline: 'The server cannot be reached. What you see may be out of date; nothing that you have typed is lost. Retrying…',
    unavailable: 'The service is unavailable at the moment. What you see may be out of date; nothing that you have typed is lost. Retrying…',
    database: 'The database is unavailable. Applications keep getting the flags that they have; changes are not possible until it is back. Retrying…',
    cache: 'Redis is unavailable. Flags are served from the database and changes are possible; other instances may see them later.',
  },
  notFound: 'There is no such page.',
  failed: 'This could not be loaded.',
  mayNotRead: 'You are signed in, but none of your groups has a role. Ask an administrator for the group viewer, editor or admin.',
  needsRole: (role: string) => `Needs the role ${role}`,
  readOnly: (environment: string) => `You can look at ${environment}. Changing it needs the role editor:${environment}.`,
  unknownEnvironment: (name: string) => `There is no environment ${name}. Choose another one above.`,
  login: {
    title: 'Sign in',
    ended: 'Your session has ended',
    endedText: 'Sign in again to go on. What you have typed stays here.',
    button: 'Sign in',
    token: 'Admin token',
    tokenHint: 'The local server prints a link with the token when it starts. The token is also in flags.json.secrets.',
  },
  conflict: {
    title: 'Someone else changed this in the meantime',
    text: 'Nothing of yours was saved.',
    theirs: 'Their change',
    mine: 'Your change',
    apply: 'Apply mine on top',
    discard: 'Discard mine',
    none: 'Nothing that is shown here',
  },
  saved: {
    confirmed: 'Every instance has it.',
    unconfirmed: 'Redis did not confirm it: other instances may take some seconds longer.',
    withoutRedis: 'Other instances see it within seconds.',
  },
  undone: 'Undone.',
  unsaved: 'You have unsaved changes. Leave this page?',
  confirmProduction: 'This is production.',
};
