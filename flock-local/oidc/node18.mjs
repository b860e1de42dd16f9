// What oidc-provider takes from newer versions of Node and Debian 12's Node 18 lacks. Imported first.
import crypto from 'node:crypto';
import { register } from 'node:module';

URL.parse ??= (url, base) => (URL.canParse(url, base) ? new URL(url, base) : null);
globalThis.crypto ??= crypto.webcrypto;
if (!crypto.hash) {
  // A built-in module cannot get a new export, so whoever imports it gets one that has it.
  const shim = `export * from 'node:crypto';
    import { createHash } from 'node:crypto';
    export const hash = (algorithm, data, encoding = 'hex') => {
      const hash = createHash(algorithm).update(data);
      return encoding === 'buffer' ? hash.digest() : hash.digest(encoding);
    };`;
  const hooks = `const shim = ${JSON.stringify(`data:text/javascript,${encodeURIComponent(shim)}`)};
    export const resolve = (specifier, context, next) =>
      specifier === 'node:crypto' && context.parentURL?.includes('/oidc-provider/')
        ? { url: shim, shortCircuit: true }
        : next(specifier, context);`;
  register(`data:text/javascript,${encodeURIComponent(hooks)}`);
}
