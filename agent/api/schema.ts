/** The shapes of what `schemas.ts` holds. Only that file and `generated.ts` are generated. */

/** A JSON Schema, draft 2020-12, as plain data. */
export type JsonSchema = { [keyword: string]: unknown };

/** A verb as `rpc-schema/verbs/<name>.json` describes it; references point to `#/components/schemas/<Type>`. */
export interface VerbSchema {
  readonly name: string;
  /** One line. */
  readonly summary: string;
  readonly description: string;
  /** It changes something: a notification to it is refused. */
  readonly changes: boolean;
  /** It undoes: what is already gone is success. */
  readonly undoes: boolean;
  /** It is answered beyond the limit on verbs at work, of which it is none. */
  readonly alwaysAdmitted?: boolean;
  /** The default of `limits.deadlineSeconds.<name>`. */
  readonly deadlineSeconds: number;
  /** An object schema; `allOf` holds rules over several members, each with its sentence in `x-rule`. */
  readonly params: ParamsSchema;
  readonly result: JsonSchema;
  /** Of a verb that lists: the members of a row that a table of it shows, those within others as `outer.inner`. */
  readonly columns?: readonly string[];
  /** Names of errors in `errors.ts` that it may end with, besides those that any verb may. */
  readonly errors: readonly string[];
}

export interface ParamsSchema {
  readonly type: 'object';
  readonly additionalProperties: false;
  readonly properties: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly allOf?: ReadonlyArray<JsonSchema & { readonly 'x-rule': string }>;
}

export interface ApiInfo {
  readonly title: string;
  readonly version: string;
  readonly description: string;
}
