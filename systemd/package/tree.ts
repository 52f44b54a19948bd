/** Lays out the package's files below a directory, as they will lie on a host. */
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { bashCompletion } from '../../agent/cli/completion.js';
import { createProgram } from '../../agent/cli/program.js';
import { configFrom } from '../../agent/config/config.js';
import { exampleConfig } from '../../agent/config/show.js';
import { bundle, licences } from './bundle.js';
import { manPages } from './man.js';

const UNITS = ['vmdiskd.service', 'vmdiskd-gateway.service', 'vmdiskd.slice'];
const DOCS = ['README.md', 'docs/operations.md', 'docs/reference.md', 'docs/security.md', 'docs/limits.md'];

/** @param root the checkout, built @param tree an empty directory */
export async function layTree(root: string, tree: string, version: string): Promise<void> {
  const put = (path: string, content: string | Buffer, mode = 0o644): void => {
    const file = join(tree, path);
    mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
    writeFileSync(file, content);
    chmodSync(file, mode);
  };
  const copy = (from: string, to: string, mode?: number): void =>
    put(to, readFileSync(join(root, from)), mode);

  const lib = join(tree, 'usr/lib/vmdiskd');
  mkdirSync(lib, { recursive: true });
  const packages = await bundle(root, lib);
  for (const [link, name] of [
    ['usr/sbin/vmdiskd', 'vmdiskd'],
    ['usr/sbin/vmdiskd-gateway', 'vmdiskd-gateway'],
    ['usr/bin/vmdiskctl', 'vmdiskctl'],
  ] as const) {
    chmodSync(join(lib, `${name}.mjs`), 0o755);
    mkdirSync(dirname(join(tree, link)), { recursive: true });
    symlinkSync(`../lib/vmdiskd/${name}.mjs`, join(tree, link));
  }
  for (const unit of UNITS) copy(`systemd/units/${unit}`, `usr/lib/systemd/system/${unit}`);
  copy('systemd/units/vmdiskd-generator', 'usr/lib/systemd/system-generators/vmdiskd-generator', 0o755);
  copy('systemd/units/sysusers.conf', 'usr/lib/sysusers.d/vmdiskd.conf');
  copy('systemd/units/tmpfiles.conf', 'usr/lib/tmpfiles.d/vmdiskd.conf');
  copy('systemd/apparmor/vmdiskd', 'etc/apparmor.d/abstractions/libvirt-qemu.d/vmdiskd');
  put('etc/vmdiskd/vmdiskd.toml', exampleConfig(configFrom({})));
  mkdirSync(join(tree, 'etc/vmdiskd/conf.d'), { recursive: true });
  put('usr/share/bash-completion/completions/vmdiskctl', bashCompletion(createProgram(async () => {})));
  for (const [path, text] of manPages(version)) put(`usr/share/man/${path}.gz`, gzipSync(text, { level: 9 }));
  const doc = 'usr/share/doc/vmdiskd';
  copy('LICENSE', `${doc}/LICENSE`);
  put(`${doc}/copyright`, `${copyright()}\n`);
  put(`${doc}/third-party-licences`, licences(root, packages));
  for (const page of DOCS) copy(page, `${doc}/${page.replace('docs/', '')}`);
}

function copyright(): string {
  return [
    'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/',
    'Upstream-Name: vmdiskd',
    'Comment: The programs have packages of others in them: third-party-licences, beside this file.',
    '',
    'Files: *',
    'Copyright: the authors of vmdiskd',
    'License: Apache-2.0',
    ' On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.',
  ].join('\n');
}
