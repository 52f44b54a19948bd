/** libvirt's typed parameters (`remote_typed_param`): named values of which newer daemons may send more. */
import { text } from './wire-types.js';
import { XdrError, type XdrReader, type XdrWriter } from './xdr.js';
import { array, mapped, type XdrType } from './xdr-types.js';

/** `virTypedParameterType`, by the names of include/libvirt/libvirt-common.h. */
export const TypedParamType = {
  int: 1,
  uint: 2,
  llong: 3,
  ullong: 4,
  double: 5,
  boolean: 6,
  string: 7,
} as const;

/**
 * A parameter's value. A 64-bit one is a number up to 2^53-1 and a bigint beyond, exact either way.
 */
export type TypedParamValue = number | bigint | boolean | string;

/** One parameter with its type on the wire. */
export type TypedParam =
  | { readonly field: string; readonly type: 1 | 2 | 5; readonly value: number }
  | { readonly field: string; readonly type: 3 | 4; readonly value: number | bigint }
  | { readonly field: string; readonly type: 6; readonly value: boolean }
  | { readonly field: string; readonly type: 7; readonly value: string };

/** Parameters by field name, such as `disk_total`; without a prototype, so that any name is safe to look up. */
export type TypedParams = Readonly<Record<string, TypedParamValue>>;

function numberWhereSafe(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** `remote_typed_param`: the name, the type, the value of that type. */
export const typedParam: XdrType<TypedParam> = {
  encode(writer: XdrWriter, param: TypedParam): void {
    text.encode(writer, param.field);
    writer.int(param.type);
    switch (param.type) {
      case TypedParamType.int:
        writer.int(param.value);
        break;
      case TypedParamType.uint:
        writer.uint(param.value);
        break;
      case TypedParamType.llong:
        writer.hyper(param.value);
        break;
      case TypedParamType.ullong:
        writer.uhyper(param.value);
        break;
      case TypedParamType.double:
        writer.double(param.value);
        break;
      case TypedParamType.boolean:
        writer.bool(param.value);
        break;
      case TypedParamType.string:
        text.encode(writer, param.value);
        break;
    }
  },
  decode(reader: XdrReader): TypedParam {
    const field = text.decode(reader);
    const type = reader.int();
    switch (type) {
      case TypedParamType.int:
        return { field, type, value: reader.int() };
      case TypedParamType.uint:
        return { field, type, value: reader.uint() };
      case TypedParamType.llong:
        return { field, type, value: numberWhereSafe(reader.hyper()) };
      case TypedParamType.ullong:
        return { field, type, value: numberWhereSafe(reader.uhyper()) };
      case TypedParamType.double:
        return { field, type, value: reader.double() };
      case TypedParamType.boolean:
        return { field, type, value: reader.bool() };
      case TypedParamType.string:
        return { field, type, value: text.decode(reader) };
      default:
        // The value's length depends on its type, so nothing after an unknown one can be read.
        throw new XdrError(
          `typed parameter ${JSON.stringify(field)} of unknown type ${type}`,
          reader.offset - 4,
        );
    }
  },
};

/** A list of parameters that is only read, as an object by field name. */
export function typedParams(max: number): XdrType<TypedParams> {
  return mapped(
    array(typedParam, max),
    () => {
      throw new TypeError('typed parameters are only read here: without their types they cannot be written');
    },
    (params) => {
      const byName: Record<string, TypedParamValue> = Object.create(null);
      for (const { field, value } of params) byName[field] = value;
      return byName;
    },
  );
}
