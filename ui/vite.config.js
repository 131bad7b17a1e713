import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { defineConfig } from 'vite';

const out = process.env.RHUMB_UI_OUT ?? 'dist';

/// Files keep their names, so that the binary can name them. What changes is the directory that the page asks for them in: a
/// digest of all of them, so that a browser may keep them for ever.
const finish = {
  name: 'finish',
  closeBundle() {
    const names = readdirSync(out).filter((name) => !name.endsWith('.gz') && name !== 'version').sort();
    const digest = createHash('sha256');
    for (const name of names) digest.update(name).update('\0').update(readFileSync(join(out, name)));
    const version = digest.digest('hex').slice(0, 16);
    const page = join(out, 'index.html');
    writeFileSync(page, readFileSync(page, 'utf8').replace(/(href|src)="\.\//g, `$1="./${version}/`));
    writeFileSync(join(out, 'version'), version);
    for (const name of names) {
      const file = join(out, name);
      rmSync(`${file}.gz`, { force: true });
      if (!name.endsWith('.woff2')) writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 9 }));
    }
  },
};

export default defineConfig({
  base: './',
  plugins: [finish],
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    outDir: out,
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        entryFileNames: 'app.js',
        chunkFileNames: '[name].js',
        assetFileNames: (asset) => {
          const name = asset.names?.[0] ?? 'asset';
          if (name.endsWith('.woff2')) return 'inter.woff2';
          return name.endsWith('.css') ? 'app.css' : name;
        },
      },
    },
  },
});
