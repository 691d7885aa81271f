// Texts of the console. Each page has its own section, so that a page's texts can be read together. sentences.ts and
// rules.ts contain more texts.
//
// The build replaces `texts.save` by its value, and leaves the name out. It does so only for sections that are never used
// as a whole or with a computed name. So texts that are chosen by a computed name have a constant of their own.

const number = new Intl.NumberFormat('en');

/** `1,240` */
export function count(value: number): string {
  return number.format(value);
}

/** `1 flag`, `1,240 flags` */
export function plural(value: number, one: string, many: string = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** `5 flags`, `1 of 5 flags` */
function part(shown: number, all: number, one: string): string {
  return shown === all ? plural(all, one) : `${count(shown)} of ${plural(all, one)}`;
}

export const texts = {
  product: 'Pennon',
  skip: 'Skip to content',
  environment: 'Environment',
  production: 'Production: changes reach real users at once.',
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
  noCopy: 'The browser does not allow it',
  curl: 'Copy as curl',
  offline: 'The server cannot be reached. Check the network, then try again.',
  notFound: 'There is no such page.',
  failed: 'This could not be loaded.',
  mayNotRead: 'None of your groups has a role. Ask an administrator for the group viewer, editor or admin.',
  needsRole: (role: string) => `Needs the role ${role}`,
  readOnly: (environment: string) => `You can look at ${environment}. Changing it needs the role editor:${environment}.`,
  unknownEnvironment: (name: string) => `There is no environment ${name}. Choose another one above.`,
  login: {
    title: 'Sign in',
    ended: 'Your session has ended',
    endedText: 'Sign in again to go on. Unsaved rules, rollouts and settings are kept.',
    button: 'Sign in',
    rejected: 'The server did not accept this sign-in.',
    token: 'Admin token',
    tokenHint: 'In flags.json.secrets of a local server, or from scripts/login for a stack.',
    errors: {
      state: 'The answer of the identity provider belongs to another sign-in. Sign in again.',
      noCode: 'The identity provider sent no code.',
      code: 'The identity provider did not accept the code. Sign in again.',
      noToken: 'The identity provider sent no readable id token.',
      issuer: (issuer: string) => `The id token is from another issuer (${issuer}).`,
      audience: 'The id token is for another application.',
      nonce: 'The id token belongs to another sign-in. Sign in again.',
    },
  },
  conflict: {
    title: 'This has changed in the meantime',
    text: 'Your change is not saved.',
    theirs: 'The other change',
    mine: 'Your change',
    apply: 'Apply mine on top',
    discard: 'Discard mine',
    none: 'Nothing that is shown here',
    reloaded: 'This has changed in the meantime. Your change is not saved: check what is shown, then try again.',
  },
  saved: {
    confirmed: 'Every instance sees the change.',
    unconfirmed: 'Redis did not confirm the change: other instances may see it up to five minutes later.',
  },
  undoing: 'Undoing…',
  undone: 'Undone.',
  never: 'never',
  confirmProduction: 'This is production.',
};

export const troubleTexts = {
  offline: 'The server cannot be reached. What you see may be out of date; nothing that you have typed is lost. Retrying…',
  unavailable: 'The service is unavailable. What you see may be out of date; nothing that you have typed is lost. Retrying…',
  database: 'The database is unavailable. Applications keep the flags that they have; nothing can be changed until it is back. Retrying…',
  cache: 'Redis is unavailable. Flags come from the database and can be changed; other instances may see changes later.',
};

export const pageNames = { flags: 'Flags', activity: 'Activity', compare: 'Compare', cleanup: 'Clean up', keys: 'API keys', settings: 'Settings' };

export const listTexts = {
  title: (environment: string) => `Flags of ${environment}`,
  create: 'Create flag',
  search: 'Search key or description',
  filter: 'Show',
  columns: { flag: 'Flag', state: 'Users get', planned: 'Ramp or schedule', evaluated: 'Last evaluated', hour: 'Evaluations (1–2 h)', change: 'Change' },
  shown: (shown: number, all: number) => part(shown, all, 'flag'),
  none: 'This environment has no active flags.',
  noneHint: 'Create one with the button above, or with this command:',
  noMatch: 'No flag matches.',
  clear: 'Clear search and filter',
  stale: 'stale',
  unreadable: 'unreadable',
  scheduled: 'Scheduled',
  ramp: (state: string, percent: number) => `Ramp: ${state} at ${percent} %`,
};

export const flagFilters = {
  all: 'all', on: 'on', off: 'off', partial: 'partial', typed: 'variants', ramping: 'ramping', stale: 'stale', archived: 'archived',
};

export const staleReasons = { notEvaluated: 'Not evaluated for 30 days', sameForEveryone: 'The same value for every user for 30 days' };

export const toggleTexts = {
  on: 'Turn on',
  off: 'Turn off',
  title: (key: string, on: boolean, environment: string) => `${on ? 'Turn on' : 'Turn off'} ${key} in ${environment}?`,
  effectOn: (state: string) => `Users will get: ${state}.`,
  effectOff: (typed: boolean) => (typed ? "Every user gets the application's default value." : 'Every user gets false.'),
  done: (key: string, on: boolean, environment: string) => `${key} is ${on ? 'on' : 'off'} in ${environment}.`,
};

export const createTexts = {
  title: (environment: string) => `Create a flag in ${environment}`,
  key: 'Key',
  keyHint: 'Applications ask for this name. It cannot be changed later.',
  description: 'Description',
  kind: 'Values',
  percentage: 'Share of users in percent',
  enabled: 'Turn it on at once',
  submit: 'Create',
  done: (key: string, environment: string) => `${key} was created in ${environment}.`,
};

export const flagKinds = {
  simple: 'on or off for a share of users',
  boolean: 'true or false, by rules',
  string: 'texts, by rules',
  number: 'numbers, by rules',
  object: 'JSON objects, by rules',
};

export const flagTexts = {
  definition: 'Definition',
  tabs: 'Views of the flag',
  now: (state: string, environment: string) => `In ${environment}: ${state}.`,
  evaluated: 'Last evaluated',
  today: (evaluations: number) => `${plural(evaluations, 'evaluation')} today.`,
  edit: 'Edit description',
  description: 'Description',
  noDescription: 'No description',
  described: (key: string) => `The description of ${key} was changed.`,
  serverOnly: 'server only',
  archive: 'Archive',
  archiveTitle: (key: string, environment: string) => `Archive ${key} in ${environment}?`,
  archiveText: "Applications no longer see the flag and use their default. Its scheduled changes are cancelled. You can restore it, turned off.",
  archived: 'This flag is archived: applications do not see it.',
  archivedDone: (key: string) => `${key} was archived.`,
  restore: 'Restore',
  restored: (key: string) => `${key} was restored, turned off.`,
  remove: 'Delete permanently',
  removeTitle: (key: string, environment: string) => `Delete ${key} in ${environment} permanently?`,
  removeText: 'The flag and its overrides are deleted. Only the history remembers them.',
  removed: (key: string) => `${key} was deleted.`,
  broken: (reason: string) => `The stored flag is unreadable: ${reason}. Its evaluations fail until the definition is replaced.`,
  rolledBack: 'A ramp was rolled back. Until someone acknowledges that, most changes of the flag are rejected',
  toRamp: 'Open the ramp',
  notFound: (key: string, environment: string) => `There is no flag ${key} in ${environment}.`,
  toList: 'All flags',
  copyTo: (environment: string) => `Copy to ${environment}…`,
};

export const rolloutTexts = {
  legend: 'Share of users that get true',
  percent: 'Percent',
  salt: 'Salt',
  saltHint: 'Flags with the same salt reach users in the same order. Usually empty.',
  bucketing: 'Buckets',
  inherit: 'as set for the environment',
  otherUsers: 'This chooses other users: many lose it, others get it.',
  save: 'Save rollout',
  off: 'The flag is off: users get false.',
  ramp: 'Ramp it instead',
  supersedes: 'A ramp is running. Saving here ends it.',
  typed: 'This flag has variants.',
  everyone: 'Everyone',
  toRules: 'Open the rules',
  known: 'Users you know',
  ids: 'User ids',
  knownHint: 'One per line or separated by commas. The list stays in this browser.',
  preview: 'What changes for them',
  moves: (gain: number, lose: number, same: number) => `${count(gain)} get it, ${count(lose)} lose it, ${count(same)} stay as they are.`,
  columns: { user: 'User', bucket: 'Bucket', before: 'Now', after: 'Then' },
  overridden: 'by override',
  noIds: 'Paste ids, or add overrides.',
  done: (key: string, percent: number, environment: string) => `${key} is at ${percent} % in ${environment}.`,
  unknownBuckets: "The environment's settings are unreadable, or this page needs HTTPS.",
};

export const rulesTexts = {
  simple: 'This flag is on or off for a share of users. Give it variants to choose values by rules.',
  convert: 'Use variants and rules',
  toSimple: 'Make it a simple flag',
  toSimpleTitle: (key: string) => `Make ${key} a simple flag?`,
  toSimpleText: 'Its variants and rules are removed. It is then on or off for a share of users.',
  variants: 'Variants',
  name: 'Name',
  value: 'Value',
  type: 'Type of the values',
  isDefault: 'Default',
  noDefault: "No default variant: the application's default applies",
  addVariant: 'Add variant',
  remove: 'Remove',
  removeItem: (what: string) => `Remove ${what}`,
  rules: 'Rules',
  rulesHint: 'The first rule that applies decides.',
  noRules: 'No rules: the default applies to every user.',
  addRule: 'Add rule',
  addCondition: 'Add condition',
  addSegment: 'Add segment',
  addSplit: 'Add variant to the split',
  up: 'Move up',
  down: 'Move down',
  rule: (number: number) => `Rule ${number}`,
  if: 'If',
  then: 'then',
  otherwise: 'Otherwise',
  join: { and: 'all conditions apply', or: 'any condition applies' },
  attribute: 'Attribute',
  operator: 'Comparison',
  comparedTo: 'Value',
  segment: 'Segment',
  not: 'not',
  outcome: 'Result',
  outcomes: { default: 'the default variant', split: 'a percentage split', json: 'other JSON' },
  by: 'Split by',
  byUser: 'the user',
  byHint: 'With company.id, all users of a company get the same variant.',
  weight: 'Weight',
  otherJson: 'The form does not know this part, and keeps it. Edit it as JSON.',
  json: 'Targeting as JSON',
  noForm: 'The form does not know this rule. Edit it as JSON.',
  badJson: (message: string) => `This is not valid JSON: ${message}`,
  serverOnly: 'Server only: applications with a client key do not see the flag',
  review: 'Review and save',
  reviewTitle: (key: string, environment: string) => `Change ${key} in ${environment}?`,
  reset: 'Discard changes',
  unchanged: 'Nothing has changed.',
  unsaved: 'Your changes stay in this tab until you save or discard them, or sign out.',
  done: (key: string, environment: string) => `The variants and rules of ${key} were saved in ${environment}.`,
};

export const problemTexts = {
  name: 'Every variant needs a name.',
  twice: (name: string) => `Two variants are named ${name}.`,
  number: 'This is not a number.',
  json: 'This is not valid JSON.',
  object: 'This is not a JSON object.',
};

export const usersTexts = {
  search: 'Search user or reason',
  add: 'Add override',
  paste: 'Paste a list',
  none: 'No user has an override.',
  noneHint: 'An override gives one user a value, whatever rollout and rules say. Set one with this command:',
  noMatch: 'No override matches.',
  columns: { user: 'User', value: 'Gets', reason: 'Reason', by: 'Set by', at: 'Set', change: 'Change' },
  user: 'User id',
  users: 'User ids',
  usersHint: 'One per line or separated by commas, at most 10,000.',
  value: 'Gets',
  include: 'true (include)',
  exclude: 'false (exclude)',
  excludeTyped: 'the default variant (exclude)',
  reason: 'Reason',
  noIds: 'Paste at least one id',
  replace: 'Remove the overrides of all other users',
  preview: (added: number, changed: number, same: number, removed: number) =>
    `${count(added)} new, ${count(changed)} changed, ${count(same)} as they are, ${count(removed)} removed.`,
  remove: 'Remove',
  removeTitle: (user: string, key: string, environment: string) => `Remove the override of ${user} for ${key} in ${environment}?`,
  removeText: 'Rollout and rules decide again what this user gets.',
  added: (user: string) => `The override of ${user} was set.`,
  removed: (user: string) => `The override of ${user} was removed.`,
  saved: (total: number) => `The list was saved; the flag has ${plural(total, 'override')} now.`,
  shown: (shown: number, all: number) => part(shown, all, 'override'),
  broken: 'unreadable',
};

export const rampTexts = {
  ramp: 'Ramp',
  none: 'This flag has no ramp. A ramp raises the share step by step, and rolls it back when an alarm fires.',
  start: 'Start a ramp',
  again: 'Start another ramp',
  confirmStart: (key: string, environment: string, first: number) => `Start a ramp of ${key} in ${environment}? The first step brings it to ${first} %.`,
  confirmApproval: (key: string, environment: string) => `Start a ramp of ${key} in ${environment}? It waits for your approval before the first step.`,
  template: 'Template',
  percent: (step: number) => `Step ${step}: percent`,
  bake: 'Bake time in minutes',
  evaluations: 'Evaluations at least',
  approval: 'Needs an approval',
  addStep: 'Add step',
  remove: (what: string) => `Remove ${what}`,
  guards: 'Guards',
  alarm: 'Alarm name or ARN',
  alarmHint: 'A CloudWatch alarm of this account.',
  onMissing: 'Without data',
  addGuard: 'Add guard',
  onAlarm: 'When an alarm fires',
  from: 'Weight moves from',
  to: 'to',
  needsOn: 'Turn the flag on first: a ramp changes the share of a flag that is on',
  noSteps: (share: number) => (share < 100 ? 'Add a step' : 'The share is 100 % already: lower it first'),
  started: (key: string) => `The ramp of ${key} has started.`,
  now: (state: string, percent: number) => `The ramp is ${state} at ${percent} %.`,
  next: 'Next step',
  step: (percent: number, bake: string) => `${percent} %, then watched for ${bake}`,
  needs: (evaluations: number) => `at least ${plural(evaluations, 'evaluation')}`,
  noGuards: 'No guards: no alarm stops this ramp.',
  acknowledgedBy: (actor: string) => `Acknowledged by ${actor}.`,
  history: 'What has happened',
  earlier: 'Earlier ramps',
  question: (action: string, key: string, environment: string) => `${action}: ramp of ${key} in ${environment}?`,
  done: (action: string, state: string, percent: number) => `${action}: the ramp is ${state} at ${percent} %.`,
  schedules: 'Scheduled changes',
  noSchedules: 'No change is scheduled.',
  at: 'Time',
  zone: (zone: string) => `In your time zone (${zone}). The change is made within a minute after that time.`,
  change: 'Change',
  on: 'Turn on',
  off: 'Turn off',
  share: 'Set the share',
  add: 'Schedule',
  addTitle: 'Schedule a change',
  added: (what: string, at: string) => `Scheduled: ${what}, ${at}.`,
  cancelled: 'The scheduled change was cancelled.',
  unschedule: 'Cancel',
  unscheduleTitle: (what: string, at: string, environment: string) => `Cancel in ${environment}: ${what}, ${at}?`,
  omitted: (omitted: string) => `${omitted} more not shown.`,
};

export const alarmStates = {
  ok: 'OK', alarm: 'in alarm', insufficientData: 'not enough data', missing: 'no such alarm', unknown: 'state unknown: CloudWatch does not answer',
};

export const stepMarks = { done: 'done', now: 'now', planned: 'planned' };

export const rampActions = {
  pause: ['Pause', 'The flag keeps its share, and no step begins until the ramp is resumed.'],
  resume: ['Resume', 'A step that has begun is watched again for its whole bake time.'],
  advance: ['Advance', 'The next step begins now. After the last step the ramp is completed.'],
  rollback: ['Roll back', 'The flag returns to its state before the ramp, and the ramp ends.'],
  acknowledge: ['Acknowledge', 'The flag can be changed again.'],
  cancel: ['Cancel ramp', 'The ramp ends, and the flag keeps its share.'],
};

export const alarmActions = { start: 'go back to the share before the ramp', previous: 'go back to the step before', off: 'turn the flag off', pause: 'pause the ramp' };

export const missingActions = { hold: 'wait', rollback: 'roll back', ignore: 'ignore it' };

export const rampTemplates = { careful: '1 · 5 · 25 · 100 %', quick: '10 · 50 · 100 %' };

export const rampStates = {
  pending: 'waiting for an approval', baking: 'running', holding: 'on hold', paused: 'paused', completed: 'completed',
  rolledBack: 'rolled back', superseded: 'ended by another change', cancelled: 'cancelled',
};

export const historyTexts = {
  title: (environment: string) => `Activity in ${environment}`,
  none: 'Nothing has been changed yet.',
  noMatch: 'No change on this page matches.',
  filter: 'Filter this page by person, flag or action',
  user: (user: string) => `User ${user}`,
  diff: 'Difference',
  undo: 'Revert this change',
  restore: 'Return to this state',
  question: (key: string, environment: string) => `Revert ${key} in ${environment}?`,
  becomes: 'The flag changes like this:',
  override: 'The override changes like this:',
  overrides: (side: string) => `The overrides of these users become what they were ${side} this change.`,
  action: 'Revert',
  done: (key: string) => `${key} was reverted.`,
  newer: 'Newer',
  older: 'Older',
  page: (page: number, pages: number) => `Page ${page} of ${pages}`,
  link: 'Link',
};

export const auditVerbs = {
  'flag.create': 'created', 'flag.update': 'changed', 'flag.archive': 'archived', 'flag.restore': 'restored', 'flag.delete': 'deleted',
  'flag.revert': 'reverted', 'flag.import': 'imported', 'flag.copy': 'copied', 'flag.schedule': 'changed on schedule', 'flag.ramp': 'ramped',
  'flag.rollback': 'rolled back', 'ramp.create': 'started a ramp of', 'ramp.change': 'changed the ramp of',
  'override.set': 'set an override of', 'override.delete': 'removed an override of', 'overrides.set': 'set overrides of',
  'overrides.delete': 'removed overrides of', 'schedule.create': 'scheduled a change of', 'schedule.cancel': 'cancelled a scheduled change of',
  'schedule.fail': 'could not make the scheduled change of', 'environment.create': 'created the environment',
  'environment.settings': 'changed the settings', 'environment.purge': 'purged the cache', 'key.create': 'created an API key',
  'key.revoke': 'revoked an API key', 'webhook.create': 'created a webhook', 'webhook.disable': 'disabled a webhook',
  'webhook.enable': 'enabled a webhook', 'webhook.delete': 'deleted a webhook',
} as Record<string, string | undefined>;

export const explainTexts = {
  title: 'Why does someone get this value?',
  json: 'Context as JSON',
  asJson: 'Edit as JSON',
  asForm: 'Edit as a form',
  name: 'Attribute',
  value: 'Value',
  valueHint: 'targetingKey is the id of the user. A value is a text, or JSON such as 42, true or {"id": 1}. Empty values are left out.',
  add: 'Add attribute',
  recent: 'Recent contexts in this browser',
  run: 'Explain',
  link: 'Copy link with this context',
  badJson: 'The context must be a JSON object, such as {"targetingKey": "alice"}.',
  result: (value: string, variant: string | null) => `${value}${variant === null ? '' : ` (variant ${variant})`}`,
  appDefault: "the application's default value",
  path: 'The steps that decided',
  archived: (is: boolean) => (is ? 'The flag is archived: applications do not see it.' : 'The flag is not archived.'),
  serverOnly: (is: boolean) => (is ? 'Only applications with a server key see the flag.' : 'Applications with any key see the flag.'),
  enabled: (is: boolean) => (is ? 'The flag is on.' : 'The flag is off.'),
  override: (what: string | null) => (what === null ? 'The user has no override.' : `The override of the user decides: ${what}.`),
  bucket: (bucket: number | null, percent: number) =>
    bucket === null
      ? 'Without a targetingKey there is no bucket.'
      : `Bucket ${bucket} of 100 ${bucket < percent ? 'is below' : 'is not below'} ${percent}: ${bucket < percent ? 'on' : 'off'}.`,
  rollout: (percent: number) => `The rollout is ${percent} %.`,
  fractional: (bucket: number | null, total: number, limits: string) => (bucket === null ? 'no bucketing value' : `bucket ${bucket} of ${total}: ${limits}`),
  below: (variant: string, limit: number) => `${variant} below ${limit}`,
  default: (variant: string | null) => (variant === null ? "The application's default applies." : `The default variant applies: ${variant}.`),
  omitted: (operations: number) => `${plural(operations, 'more operation')}.`,
  skipped: '(no value)',
};

export const evaluationReasons = {
  STATIC: 'the same for everyone', DEFAULT: 'no rule applied', TARGETING_MATCH: 'a rule or an override decided',
  SPLIT: 'the bucket of the user decided', DISABLED: 'the flag is off', ERROR: 'the evaluation failed',
} as Record<string, string | undefined>;

export const environmentTexts = {
  compare: 'Compare environments',
  from: 'From',
  to: 'To',
  same: 'These environments have the same flags.',
  sameName: 'Choose two different environments.',
  oneOnly: 'There is only one environment.',
  differ: (flags: number) => `${plural(flags, 'flag differs', 'flags differ')}.`,
  columns: { flag: 'Flag', diff: 'Difference' },
  missing: 'missing',
  sameFlag: (key: string) => `${key} is the same in both environments.`,
  allFlags: 'Compare all flags',
  swap: 'Swap',
  select: (key: string) => `Select ${key}`,
  notIn: (environment: string) => `There is no such flag in ${environment}, or it is archived`,
  selectAll: 'Select all',
  selectNone: 'Select none',
  nothing: 'Select flags to copy',
  review: (flags: number) => (flags === 0 ? 'Copy' : `Copy ${plural(flags, 'flag')}`),
  copyTitle: (flags: number, from: string, to: string) => `Copy ${plural(flags, 'flag')} from ${from} to ${to}?`,
  copyText: 'The overrides of both environments stay as they are.',
  copy: 'Copy',
  copied: (flags: number, to: string) => `${plural(flags, 'flag')} copied to ${to}.`,
  settings: (environment: string) => `Settings of ${environment}`,
  fractional: 'Version of fractional',
  bucketing: 'Buckets of simple flags',
  anonymous: 'Value of a partial rollout for a user without an id',
  inherit: "installation's default",
  rebuckets: 'Another version or bucketing moves users between variants.',
  evaluators: 'Evaluators (segments) as JSON',
  metadata: 'Metadata as JSON',
  badJson: 'This is not valid JSON.',
  saveTitle: (environment: string) => `Change the settings of ${environment}?`,
  saved: 'The settings were saved.',
  file: 'Export and import',
  export: 'Export as flagd file',
  import: 'flagd file',
  paste: 'Contents',
  mode: 'Flags that the file lacks',
  dryRun: 'Show what would change',
  importTitle: (environment: string) => `Import into ${environment}?`,
  doImport: 'Import',
  imported: (environment: string) => `The file was imported into ${environment}.`,
  unchanged: (flags: number) => `${plural(flags, 'flag')} unchanged.`,
  atLeast: 'at least',
  omitted: (entries: number) => `${plural(entries, 'more entry', 'more entries')} not shown.`,
  unknownFields: 'Unknown fields that are kept',
  settingsChange: 'Settings',
  tooLarge: 'Too large to show.',
  create: 'Create an environment',
  name: 'Name',
  created: (environment: string) => `${environment} was created.`,
  purge: 'Purge the cache',
  purgeText: 'The flags are read from the database again. Use it after a change by SQL.',
  purged: 'A purge was requested.',
};

export const importModes = { merge: 'stay', replace: 'are archived' };

export const differenceKinds = { created: 'Created', changed: 'Changed', archived: 'Archived' };

export const snippetTexts = {
  intro: 'Applications read the flag with an OpenFeature SDK and an API key of the environment.',
  toKeys: 'API keys',
  placeholder: 'YOUR_API_KEY',
  language: 'Language',
  copy: 'Copy program',
};

export const languageNames = { node: 'Node.js', browser: 'Browser (client key)', python: 'Python', rust: 'Rust' };

export const keysTexts = {
  title: (environment: string) => `API keys of ${environment}`,
  create: 'Create key',
  createTitle: (environment: string) => `Create an API key for ${environment}`,
  createdTitle: (name: string) => `Key ${name}`,
  once: 'Copy the key now: it is shown only once.',
  value: 'API key',
  copy: 'Copy key',
  none: 'This environment has no API keys.',
  noneHint: 'Applications need one to evaluate flags. Create one with the button above, or with this command:',
  nameHint: 'Which application uses it, such as shop backend.',
  kinds: { server: 'server: evaluates all flags, must stay secret', client: 'client: for web pages and apps, does not see server-only flags', sync: 'sync: reads the rules of all flags, for flagd and local evaluation', unreadable: 'unreadable' },
  columns: { name: 'Name', kind: 'Kind', created: 'Created', by: 'Created by', used: 'Last used', change: 'Change' },
  revoked: 'revoked',
  revoke: 'Revoke',
  revokeTitle: (name: string, environment: string) => `Revoke the key ${name} of ${environment}?`,
  revokeText: 'Applications that use it get 401 and continue with their defaults. This cannot be undone.',
  revokedDone: (name: string) => `The key ${name} was revoked.`,
};

export const usageTexts = {
  period: 'Period',
  days: (days: string) => `${days} days`,
  label: (key: string) => `Evaluations of ${key}`,
  none: 'No evaluation was counted.',
  noneHint: 'Counts appear within a minute after applications evaluate the flag.',
  columns: { variant: 'Variant', course: 'By day', count: 'Count', share: 'Share' },
  codeDefault: "application's default",
  course: (values: readonly number[]) => `From ${count(values[0] ?? 0)} to ${count(values.at(-1) ?? 0)} a day, at most ${count(Math.max(...values))}`,
  hint: 'Days are days of UTC.',
};

export const cleanupTexts = {
  title: 'Clean up',
  none: 'No flag is stale.',
  noneHint: 'A flag is stale after 30 days without an evaluation, or with the same value for every user.',
  nothing: 'Select at least one flag',
  columns: { flag: 'Flag', environment: 'Environment', reason: 'Why', evaluated: 'Last evaluated' },
  one: (key: string, environment: string) => `${key} in ${environment}`,
  archive: (flags: number) => (flags === 0 ? 'Archive' : `Archive ${plural(flags, 'flag')}`),
  archiveTitle: (flags: number) => `Archive ${plural(flags, 'flag')}?`,
  archived: (flags: number) => `${plural(flags, 'flag')} archived.`,
};

export const paletteTexts = {
  title: 'Commands',
  keys: 'Keyboard shortcuts',
  search: 'Search commands and flags',
  open: 'Open the row that has the focus',
  flag: (key: string, environment: string) => `Open flag ${key} in ${environment}`,
  found: (commands: number) => (commands === 0 ? 'Nothing matches.' : plural(commands, 'command')),
};
