import assert from 'node:assert/strict';
import { test } from 'node:test';
import { definitionFrom, definitionOfSimple, draftOf, mergeDefinitions, type Definition } from './definition.ts';

const banner: Definition = {
  variants: { plain: 'p', festive: '5' },
  defaultVariant: 'plain',
  targeting: { if: [{ $ref: 'staff' }, 'festive'] },
  metadata: { owner: 'web', serverOnly: true },
  $comment: 'kept',
};

test('a draft that nobody has changed is the same definition', () => {
  const definitions: Definition[] = [
    banner,
    { variants: { on: true, off: false } },
    { variants: { on: true, off: false }, defaultVariant: null, targeting: {}, metadata: {} },
    { variants: { a: 1, b: -2.5e10 }, defaultVariant: 'a' },
    { variants: { a: { list: [1, null] }, b: {} } },
    { variants: {} },
  ];
  for (const definition of definitions) assert.deepEqual(definitionFrom(draftOf(definition), definition), { definition });
});

test('a change keeps what the form does not show', () => {
  const draft = { ...draftOf(banner), defaultAt: -1, serverOnly: false };
  assert.deepEqual(definitionFrom(draft, banner), {
    definition: {
      variants: banner['variants'], targeting: banner['targeting'], $comment: 'kept', metadata: { owner: 'web', serverOnly: false },
    },
  });
});

test('the default variant keeps its place while another variant has its name', () => {
  const draft = draftOf({ variants: { v1: 1, v2: 2 }, defaultVariant: 'v1' });
  const named = (name: string) => definitionFrom({ ...draft, variants: [...draft.variants, { name, text: '3' }] }, {});
  assert.deepEqual(named('v1'), { problem: { kind: 'twice', variant: 2, detail: 'v1' } });
  assert.deepEqual(named('v10'), { definition: { variants: { v1: 1, v2: 2, v10: 3 }, defaultVariant: 'v1' } });
});

test('rules can be removed', () => {
  const result = definitionFrom({ ...draftOf(banner), targeting: '' }, banner);
  assert.deepEqual('definition' in result && result.definition['targeting'], {});
});

test('values and names that cannot be sent are problems of their variant', () => {
  const draft = draftOf({ variants: { a: 1, b: 2 } });
  const [a, b] = draft.variants;
  assert.ok(a && b);
  const problem = (variants: typeof draft.variants, type = draft.type) => definitionFrom({ ...draft, type, variants }, {});
  assert.deepEqual(problem([a, { ...b, name: 'a' }]), { problem: { kind: 'twice', variant: 1, detail: 'a' } });
  assert.deepEqual(problem([{ ...a, name: '' }]), { problem: { kind: 'name', variant: 0 } });
  assert.deepEqual(problem([{ ...a, text: 'x' }]), { problem: { kind: 'number', variant: 0 } });
  assert.deepEqual(problem([{ ...a, text: '[]' }], 'object'), { problem: { kind: 'object', variant: 0 } });
});

test('targeting that is not valid JSON is a problem', () => {
  const result = definitionFrom({ ...draftOf(banner), targeting: '{' }, banner);
  assert.equal('problem' in result && result.problem.kind, 'json');
});

test('a simple flag becomes a split of the same percentage', () => {
  assert.deepEqual(definitionOfSimple(30, null)['targeting'], { fractional: [['on', 30], ['off', 70]] });
  assert.deepEqual(definitionOfSimple(30, 's')['targeting'], { fractional: [{ cat: ['s', { var: 'targetingKey' }] }, ['on', 30], ['off', 70]] });
  assert.equal(definitionOfSimple(100, null)['defaultVariant'], 'on');
  assert.equal(definitionOfSimple(0, null)['targeting'], undefined);
});

test('my fields go on top of their definition', () => {
  const theirs = { ...banner, defaultVariant: 'festive' };
  const mine = { ...banner, targeting: {} };
  assert.deepEqual(mergeDefinitions(banner, theirs, mine), { ...banner, defaultVariant: 'festive', targeting: {} });
  assert.equal(mergeDefinitions(banner, theirs, null), null);
  assert.deepEqual(mergeDefinitions(banner, null, mine), mine);
  const { $comment: _, ...without } = banner;
  assert.deepEqual(mergeDefinitions(banner, theirs, without), { ...without, defaultVariant: 'festive' });
});
