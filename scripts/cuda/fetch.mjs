// The parts of the CUDA toolkits that device images are made with: NVRTC, the runtime's headers and libcudart_static.a, into
// build/cuda-toolkit/<major version>. They come as pip wheels, pinned in wheels.json; pip checks the hashes. With
// OPENLORA_CUDA_HOME the toolkit of that folder is used, and nothing is fetched. usage: node scripts/cuda/fetch.mjs [12] [13]

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from '../files.mjs';

const pinned = JSON.parse(readFileSync(new URL('wheels.json', import.meta.url), 'utf8'));
const machine = { x64: 'x86_64', arm64: 'aarch64' }[process.arch];
// What wheels for Linux are tagged with; pip takes none but those named.
const platforms = ['manylinux_2_28', 'manylinux2014', 'manylinux_2_12', 'manylinux2010'].map(
  (tag) => `${tag}_${machine}`,
);

// argv: folder of wheels, folder of the toolkit, [{ wheel, files }]. In a wheel all stands two folders deep.
const unpack = `
import json, os, re, shutil, sys, zipfile
wheels, toolkit, wanted = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
for name in os.listdir(wheels):
    files = next(w["files"] for w in wanted if name.startswith(w["wheel"]))
    with zipfile.ZipFile(os.path.join(wheels, name)) as wheel:
        for member in wheel.namelist():
            path = "/".join(member.split("/")[2:])
            if not re.match(files, path) or ".." in path or path.endswith("/"):
                continue
            target = os.path.join(toolkit, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with wheel.open(member) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink)
`;

function python(args) {
  const result = spawnSync('python3', args, { encoding: 'utf8' });
  if (result.error) throw new Error(`python3 is needed to fetch CUDA's parts: ${result.error.message}`);
  if (result.status !== 0) throw new Error(`python3 ${args.slice(0, 3).join(' ')} failed:\n${result.stderr}`);
}

/** Downloads and unpacks the wheels of a version into `folder`, which is there only when it is whole. */
function fetchWheels(major, wheels, folder) {
  const temporary = `${folder}-${process.pid}`;
  const downloads = join(temporary, 'wheels');
  try {
    mkdirSync(downloads, { recursive: true });
    const requirements = wheels.map(({ name, version, sha256 }) => `${name}==${version} --hash=sha256:${sha256}\n`);
    const list = join(temporary, 'requirements.txt');
    writeFileSync(list, requirements.join(''));
    console.log(`fetching CUDA ${major}: ${wheels.map(({ name, version }) => `${name} ${version}`).join(', ')}`);
    const accepted = platforms.flatMap((platform) => ['--platform', platform]);
    const options = ['--quiet', '--no-deps', '--only-binary=:all:', '--require-hashes', '--dest', downloads];
    python(['-m', 'pip', 'download', ...options, ...accepted, '-r', list]);
    const wanted = wheels.map(({ name, version, files }) => ({
      wheel: `${name.replaceAll('-', '_')}-${version}-`,
      files,
    }));
    python(['-c', unpack, downloads, temporary, JSON.stringify(wanted)]);
    rmSync(downloads, { recursive: true });
    rmSync(list);
    writeFileSync(join(temporary, 'wheels.json'), JSON.stringify(wheels));
    rmSync(folder, { recursive: true, force: true });
    renameSync(temporary, folder);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** libnvrtc.so.<major> of a toolkit: wheels have lib, an installed toolkit has lib64, a distribution has others. */
function findNvrtc(folder) {
  const places = ['lib64', 'lib', 'targets/x86_64-linux/lib', 'targets/sbsa-linux/lib', 'lib/x86_64-linux-gnu'];
  for (const place of places) {
    const path = join(folder, place);
    const name = existsSync(path) ? readdirSync(path).find((file) => /^libnvrtc\.so\.\d+$/.test(file)) : undefined;
    if (name) return { major: name.split('.').pop(), nvrtc: join(path, name) };
  }
  throw new Error(`no libnvrtc.so.<version> under ${folder}`);
}

/** Toolkits, fetched where they aren't there yet: [{ major, folder, nvrtc }]. */
export function toolkits(majors = Object.keys(pinned)) {
  const home = process.env.OPENLORA_CUDA_HOME;
  if (home) return [{ folder: resolve(home), ...findNvrtc(resolve(home)) }];
  return majors.map((major) => {
    if (!pinned[major] || !machine) throw new Error(`no wheels are pinned for CUDA ${major} on ${process.arch}`);
    const wheels = pinned[major].map((wheel) => ({ ...wheel, sha256: wheel.sha256[machine] }));
    const folder = join(root, 'build', 'cuda-toolkit', major);
    const stamp = join(folder, 'wheels.json');
    if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== JSON.stringify(wheels))
      fetchWheels(major, wheels, folder);
    return { folder, ...findNvrtc(folder) };
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const majors = process.argv.slice(2);
    for (const { major, nvrtc } of toolkits(majors.length > 0 ? majors : undefined)) console.log(`CUDA ${major}: ${nvrtc}`);
  } catch (error) {
    console.error(error.message);
    process.exit(1);
  }
}
