import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fieldText, groupSentence, listText, outcomeSentence, parseField, parseList, parseRules, parseValue, writeRules, type Operator } from './rules.ts';
import { textOf, type Json } from './api/json.ts';

const festive: Json = {
  if: [
    { and: [{ in: [{ var: 'country' }, ['DE', 'AT']] }, { '>=': [{ var: 'user.age' }, 18] }] },
    'festive',
    null,
  ],
};

test('common shapes survive the form unchanged', () => {
  const shapes: Json[] = [
    {},
    festive,
    { fractional: [['red', 50], ['blue', 25], ['green']] },
    { fractional: [{ var: 'company.id' }, ['red', 1], ['blue', 1]] },
    { fractional: [{ cat: ['salt', { var: 'targetingKey' }] }, ['on', 30], ['off', 70]] },
    { if: [{ $ref: 'staff' }, 'on'] },
    { if: [{ '!': [{ $ref: 'staff' }] }, 'on', { '!': { $ref: 'beta' } }, null, 'off'] },
    { if: [{ or: [{ starts_with: [{ var: 'email' }, 'a'] }] }, { fractional: [['a', 1], ['b', 1]] }] },
    { if: [{ sem_ver: [{ var: 'version' }, '>=', '2.0.0'] }, 'new', 'old'] },
    { if: [{ in: ['@example.com', { var: 'email' }] }, 'on'] },
    { if: [{ '!': [{ in: [{ var: 'country' }, ['DE', 7, null]] }] }, 'on'] },
  ];
  for (const shape of shapes) {
    const form = parseRules(shape);
    assert.ok(form, JSON.stringify(shape));
    assert.deepEqual(writeRules(form), shape);
  }
});

test('parts of other shapes are kept as JSON inside the form', () => {
  const shape: Json = { if: [{ and: [{ some: [{ var: 'tags' }, { '==': [{ var: '' }, 'x'] }] }, { $ref: 'staff' }] }, { var: 'choice' }, 'b'] };
  const form = parseRules(shape);
  assert.equal(form?.rules[0]?.when.conditions[0]?.kind, 'json');
  assert.equal(form?.rules[0]?.then.kind, 'json');
  assert.deepEqual(form && writeRules(form), shape);
});

test('a comparison is kept as JSON unless it is of an attribute without a default and a plain value', () => {
  for (const condition of [
    { '==': [{ var: ['plan', 'free'] }, 'pro'] },
    { '==': ['pro', { var: 'plan' }] },
    { '==': [{ var: 'a' }, { var: 'b' }] },
    { in: [{ var: 'a' }, [['nested']]] },
  ] as Json[]) {
    const shape: Json = { if: [condition, 'a'] };
    const form = parseRules(shape);
    assert.equal(form?.rules[0]?.when.conditions[0]?.kind, 'json');
    assert.deepEqual(form && writeRules(form), shape);
  }
});

test('a rule has no form if a comparison has a third operand or a second operator', () => {
  for (const condition of [{ '<': [{ var: 'n' }, 1, 2] }, { '==': [{ var: 'a' }, 1], '!=': [{ var: 'a' }, 2] }] as Json[]) {
    assert.equal(parseRules({ if: [condition, 'a'] }), null);
  }
});

test('a rule of another shape has no form', () => {
  assert.equal(parseRules({ if: [true, 'a'], and: [] }), null);
  assert.equal(parseRules('a'), null);
});

test('random rules either survive the form or have none', () => {
  let seed = 7;
  const random = (most: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % most;
  };
  const names = ['var', '$ref', 'if', 'and', 'or', '!', '==', 'in', 'fractional', 'sem_ver', 'contains', '<'];
  const grow = (depth: number): Json => {
    const kind = random(depth === 0 ? 4 : 8);
    if (kind === 0) return random(3);
    if (kind === 1) return ['a', '>=', 'user.age', '1'][random(4)] ?? '';
    if (kind === 2) return null;
    if (kind === 3) return random(2) === 0;
    const list = () => Array.from({ length: random(4) }, () => grow(depth - 1));
    if (kind === 4) return list();
    return { [names[random(names.length)] ?? 'var']: random(4) === 0 ? grow(depth - 1) : list() };
  };
  let forms = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const rule: Json = { [random(2) === 0 ? 'if' : 'fractional']: Array.from({ length: 1 + random(5) }, () => grow(3)) };
    const form = parseRules(rule);
    if (!form) continue;
    forms += 1;
    assert.deepEqual(writeRules(form), rule);
  }
  assert.ok(forms > 5_000, `only ${forms} rules had a form`);
});

test('values survive their field', () => {
  for (const value of ['DE', 'a b', '5', 'true', 'null', '', ' x ', '"quoted"', 'a"b', 5, -1.5, true, false, null, '{}', '[1]'] as Json[]) {
    assert.deepEqual(parseValue(textOf(value)), value, JSON.stringify(value));
  }
});

test('lists survive their field', () => {
  for (const list of [[], ['DE', 'AT'], ['a,b', 'c'], ['5', 5], ['', 'x'], ['a"b', '"'], [null, true]] as Json[][]) {
    assert.deepEqual(parseList(listText(list)), list, JSON.stringify(list));
  }
  assert.deepEqual(parseList('DE, AT,'), ['DE', 'AT']);
});

test('the field of an operator that compares texts holds a text, even if it is a number', () => {
  for (const operator of ['contains', 'starts_with', 'ends_with', 'sem_ver >='] as Operator[]) {
    for (const text of ['4', '1.10', 'true', 'null', '"x"', '']) {
      const value = parseField(operator, text);
      assert.equal(value, text, operator);
      assert.equal(fieldText(operator, value), text, operator);
      const rule = { rules: [{ when: { join: undefined, conditions: [{ kind: 'compare' as const, attribute: 'a', operator, value, negated: undefined }] }, then: { kind: 'default' as const } }], otherwise: undefined };
      assert.deepEqual(parseRules(writeRules(rule)), rule);
    }
  }
  assert.equal(parseField('==', '4'), 4);
  assert.deepEqual(parseField('in', '4, x'), [4, 'x']);
});

test('rules are read as sentences', () => {
  const form = parseRules(festive);
  const rule = form?.rules[0];
  assert.equal(rule && groupSentence(rule.when), 'country is one of DE, AT and user.age ≥ 18');
  assert.equal(outcomeSentence(rule?.then, 'plain'), 'festive');
  assert.equal(outcomeSentence(form?.otherwise, 'plain'), 'the default variant plain');
  assert.equal(outcomeSentence({ kind: 'split', by: undefined, buckets: [{ variant: 'a', weight: 1 }, { variant: 'b', weight: 2 }] }, null), '33.33 % a, 66.67 % b');
});
