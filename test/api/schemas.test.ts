import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { parseOpenRPCDocument, validateOpenRPCDocument } from '@open-rpc/schema-utils-js';
import { Ajv } from 'ajv';
import { test } from 'tap';
import { errorMeanings, typeSchemas, verbSchemas } from '../../agent/api/schemas.js';
import { type ErrorName, errorRegistry } from '../../agent/errors.js';
import { discoverDocument } from '../../agent/rpc/discover.js';
import type { VerbName } from '../../agent/verbs/verb.js';
import { staleFiles } from '../../rpc-schema/generate.js';

test('types, constants and the reference page are what rpc-schema says', async (t) => {
  t.strictSame(await staleFiles(), []);
});

test('errors.json and the registry name the same errors, and the docs have them all', async (t) => {
  t.strictSame(Object.keys(errorMeanings), Object.keys(errorRegistry));
  const page = readFileSync(new URL('../../docs/reference.md', import.meta.url), 'utf8');
  for (const [name, error] of Object.entries(errorRegistry)) {
    const retry = 'depends' in error ? 'depends' : error.retryable ? 'yes' : '';
    t.ok(page.includes(`| \`${name}\` | ${error.code} | ${retry} |`), name);
  }
  t.match(page, /`GatewayUnavailable` \| 5024 \| depends \|/, 'without a gateway to retry is for nothing');
  const codes = Object.values(errorRegistry).map(({ code }) => code);
  t.equal(new Set(codes).size, codes.length, 'no number is used twice');
});

test('verbs name only errors that exist', async (t) => {
  for (const { name, errors } of Object.values(verbSchemas)) {
    for (const error of errors) t.ok(Object.hasOwn(errorRegistry, error), `${name}: ${error}`);
  }
});

test('every member is described, every type is used', async (t) => {
  const bare: string[] = [];
  const used = new Set<string>();
  const walk = (node: unknown, place: string): void => {
    if (typeof node !== 'object' || node === null) return;
    for (const [key, value] of Object.entries(node)) {
      if (key === '$ref') used.add(String(value).replace('#/components/schemas/', ''));
      if (key === 'properties') {
        for (const [name, member] of Object.entries(value as Record<string, Record<string, unknown>>)) {
          if (member.description === undefined && member.const === undefined) bare.push(`${place}.${name}`);
        }
      }
      walk(value, `${place}.${key}`);
    }
  };
  walk(verbSchemas, 'verbs');
  walk(typeSchemas, 'types');
  t.strictSame(bare, []);
  t.strictSame(
    Object.keys(typeSchemas).filter((name) => !used.has(name)),
    [],
  );
});

test('a verb that undoes changes something too', async (t) => {
  for (const { name, undoes, changes } of Object.values(verbSchemas)) if (undoes) t.ok(changes, name);
});

test('rpc.discover is a valid OpenRPC document, and one that can be used', async (t) => {
  const names = Object.keys(verbSchemas) as VerbName[];
  const document = discoverDocument(names) as unknown as Parameters<typeof validateOpenRPCDocument>[0];
  t.equal(validateOpenRPCDocument(document), true);
  const parsed = await parseOpenRPCDocument(structuredClone(document), { dereference: true });
  t.strictSame(
    parsed.methods.map((method) => (method as { name: string }).name),
    names,
  );
  const prepare = JSON.stringify(parsed.methods[0]);
  t.notMatch(prepare, '$ref', 'every reference in it leads somewhere');
  for (const method of parsed.methods as Array<{
    errors?: Array<{ code: number; data: { name: string } }>;
  }>) {
    for (const { code, data } of method.errors ?? [])
      t.equal(code, errorRegistry[data.name as ErrorName].code);
  }
});

test('and so it is by the meta schema that the OpenRPC project publishes', async (t) => {
  // Its types name no value; and what it says of JSON Schema itself it keeps at an address on the network.
  const { openrpcDocument } = createRequire(import.meta.url)('@open-rpc/meta-schema') as {
    openrpcDocument: object;
  };
  const meta = JSON.stringify({ ...openrpcDocument, $schema: undefined }).replace(
    /"\$ref":"https:\/\/meta\.json-schema\.tools[^"]*"/g,
    '"title":"any"',
  );
  const validate = new Ajv({ strict: false }).compile(JSON.parse(meta));
  t.ok(validate(discoverDocument(['prepareBackupDisk', 'rpc.discover'])), JSON.stringify(validate.errors));
  t.notOk(validate({ ...discoverDocument([]), methods: [{ name: 'x' }] }), 'which does find faults');
});
