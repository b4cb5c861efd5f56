#!/usr/bin/env node
// `sparklet-udf build functions.js -o functions.wasm`: one file of functions into one component.

import { spawnSync } from "node:child_process";
import { appendFileSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

function stop(message) {
  console.error(message);
  process.exit(1);
}

function tool() {
  if (process.env.COMPONENTIZE_QJS) return process.env.COMPONENTIZE_QJS;
  const require = createRequire(import.meta.url);
  try {
    const manifest = require.resolve("componentize-qjs/package.json");
    return join(dirname(manifest), Object.values(require(manifest).bin)[0]);
  } catch {
    return stop("componentize-qjs is not installed: npm install componentize-qjs");
  }
}

/** A custom section, by which sparklet lists the functions without running the component. */
function section(name, data) {
  const sized = bytes => {
    const size = [];
    let rest = bytes.length;
    for (; rest > 127; rest >>= 7) size.push((rest & 127) | 128);
    return Buffer.concat([Buffer.from([...size, rest]), bytes]);
  };
  return Buffer.concat([Buffer.from([0]), sized(Buffer.concat([sized(Buffer.from(name)), Buffer.from(data)]))]);
}

const [command, source, ...rest] = process.argv.slice(2);
if (command !== "build" || !source) stop("usage: sparklet-udf build FUNCTIONS.js [-o FUNCTIONS.wasm]");
const output = resolve(rest[0] === "-o" && rest[1] ? rest[1] : basename(source).replace(/\.m?js$/, "") + ".wasm");
// The world: within the installed package, or beside it in the repository.
const wit = existsSync(join(here, "wit")) ? join(here, "wit") : join(here, "..", "wit");

const folder = mkdtempSync(join(tmpdir(), "sparklet-udf-"));
try {
  copyFileSync(join(here, "index.js"), join(folder, "index.js"));
  copyFileSync(join(here, "world.js"), join(folder, "world.js"));
  const text = readFileSync(source, "utf8").replace(/(from\s+|import\s+)(["'])sparklet-udf\2/g, "$1$2./index.js$2");
  writeFileSync(join(folder, "functions.js"), text);
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  writeFileSync(join(folder, "app.js"), 'import "./functions.js";\nexport * from "./world.js";\n');
  const done = spawnSync(
    process.execPath,
    [tool(), "-w", wit, "-n", "udf", "-j", join(folder, "app.js"), "--module-root", folder, "--sync", "--stub-wasi", "-o", output],
    { encoding: "utf8" },
  );
  const { describe } = await import(pathToFileURL(join(folder, "app.js")));
  if (done.status !== 0) stop(`${done.stdout}${done.stderr}\ncannot build ${source}`);
  appendFileSync(output, section("sparklet.udf", describe()));
  console.log(`${basename(output)}: ${(statSync(output).size / 1e6).toFixed(1)} MB`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
