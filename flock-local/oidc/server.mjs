// The OpenID provider of the local stack. Development only: any user name comes in with any password, so it listens on
// loopback and nowhere else. Keys outlive a restart; sessions, codes and refresh tokens do not.
//   node server.mjs --port 13000 --keys DIR [--issuer URL] [--audience URI]
import './node18.mjs';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { parseArgs } from 'node:util';

const { Provider, interactionPolicy } = await import('oidc-provider');

const text = { type: 'string' };
const { values: options } = parseArgs({ options: { port: text, keys: text, issuer: text, audience: text } });
const port = Number(options.port ?? process.env.OIDC_PORT ?? 13000);
const issuer = options.issuer ?? process.env.OIDC_ISSUER ?? `http://127.0.0.1:${port}`;
const audience = options.audience ?? process.env.OIDC_AUDIENCE ?? 'https://api.flock.local';
const directory = options.keys ?? process.env.OIDC_KEYS;
if (!directory || !(port > 0)) {
  console.error('Error: --keys DIR and --port N are needed');
  process.exit(2);
}

// Private keys and the secret of the cookies, made at the first start.
function loadKeys() {
  const file = path.join(directory, 'keys.json');
  if (fs.existsSync(file)) return JSON.parse(fs.readFileSync(file, 'utf8'));
  const jwk = (alg, type, parameters) => {
    const { privateKey } = crypto.generateKeyPairSync(type, parameters);
    return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: crypto.randomUUID() };
  };
  const keys = {
    jwks: [jwk('ES256', 'ec', { namedCurve: 'P-256' }), jwk('RS256', 'rsa', { modulusLength: 2048 })],
    cookies: [crypto.randomBytes(32).toString('base64url')],
  };
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  fs.writeFileSync(`${file}.new`, JSON.stringify(keys), { mode: 0o600 });
  fs.renameSync(`${file}.new`, file);
  return keys;
}
const keys = loadKeys();

const escape = (value) => String(value).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const page = (title, body) => `<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>${title}</title>
<style>body{font:16px/1.5 sans-serif;max-width:26rem;margin:4rem auto;padding:0 1rem}input{display:block;margin:.5rem 0;padding:.4rem;width:100%;box-sizing:border-box}
code{font-size:1.6rem}.note{color:#8a4b00;border:1px solid;padding:.5rem;border-radius:.3rem}</style>
<h1>${title}</h1>${body}
<p class="note">Development only: this provider takes any user name with any password. Never use it outside your own machine.</p></html>`;

const scope = 'openid offline_access email profile';
const claimsOf = (id) => ({
  sub: id,
  email: id.includes('@') ? id : `${id}@example.test`,
  email_verified: true,
  name: id.split('@')[0],
});

// Signing in is the whole of it: nobody is asked to consent to their own tools.
const policy = interactionPolicy.base();
policy.get('consent').checks.clear();

const loopback = (name) => ['127.0.0.1', '[::1]', 'localhost'].includes(name);
const paths = ['/', '/callback', '/login/callback', '/auth/callback'];
const provider = new Provider(issuer, {
  jwks: { keys: keys.jwks },
  cookies: { keys: keys.cookies },
  clients: [
    {
      client_id: 'flock-cli',
      client_name: 'flock (command line)',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      response_types: [],
      redirect_uris: [],
      id_token_signed_response_alg: 'ES256',
    },
    {
      client_id: 'flock-ui',
      client_name: 'Flock dashboard',
      application_type: 'native', // loopback redirects on any port (RFC 8252, 7.3)
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: paths.flatMap((p) => [`http://127.0.0.1${p}`, `http://localhost${p}`, `http://[::1]${p}`]),
      post_logout_redirect_uris: ['http://127.0.0.1/', 'http://localhost/', 'http://[::1]/'],
      id_token_signed_response_alg: 'ES256',
    },
  ],
  scopes: scope.split(' '),
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => claimsOf(id) }),
  extraTokenClaims: (ctx, token) => {
    const { sub, ...claims } = claimsOf(token.accountId);
    return claims;
  },
  pkce: { required: () => true },
  issueRefreshToken: (ctx, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  clientBasedCORS: (ctx, origin) => loopback(URL.parse(origin)?.hostname),
  interactions: { policy, url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope(scope);
    grant.addResourceScope(audience, `${scope} api`);
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: false },
    rpInitiatedLogout: { enabled: true },
    deviceFlow: {
      enabled: true,
      userCodeInputSource: (ctx, form, out, error) => {
        const wrong = error ? '<p>That code is not valid any more.</p>' : '';
        ctx.body = page('Connect a tool', `${wrong}<p>Enter the code that it shows.</p>${form}
          <button type="submit" form="op.deviceInputForm">Continue</button>`);
      },
      userCodeConfirmSource: (ctx, form, client, info, code) => {
        ctx.body = page('Connect a tool', `<p>Does ${escape(client.clientName)} show this code?</p>
          <p><code>${escape(code)}</code></p>${form}
          <button type="submit" form="op.deviceConfirmForm">Yes, continue</button>`);
      },
      successSource: (ctx) => {
        ctx.body = page('Signed in', '<p id="done">You can close this page.</p>');
      },
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: `${scope} api`,
        audience,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 3600,
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  ttl: { Session: 86400, Grant: 14 * 86400, Interaction: 3600, DeviceCode: 600, IdToken: 3600, AccessToken: 3600, RefreshToken: 14 * 86400 },
});

async function readForm(request) {
  let body = '';
  for await (const chunk of request) {
    body += chunk;
    if (body.length > 8192) throw new Error('the form is too long');
  }
  return new URLSearchParams(body);
}

async function interact(request, response) {
  const { prompt, params } = await provider.interactionDetails(request, response);
  const finish = (result) => provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
  if (prompt.name === 'consent') return finish({ consent: {} });
  if (request.method === 'POST') {
    const user = (await readForm(request)).get('login')?.trim() ?? '';
    if (/^[A-Za-z0-9._@+-]{1,100}$/.test(user)) return finish({ login: { accountId: user } });
  }
  response.setHeader('Content-Type', 'text/html; charset=utf-8');
  response.setHeader('Cache-Control', 'no-store');
  response.end(page('Sign in', `<form method="post">
    <input name="login" required autofocus placeholder="user name or email" value="${escape(params.login_hint ?? '')}">
    <input name="password" type="password" placeholder="any password"><button type="submit">Sign in</button></form>`));
}

const callback = provider.callback();
const server = http.createServer((request, response) => {
  // A page elsewhere must not reach this by a name that it makes point here (DNS rebinding).
  if (!loopback((request.headers.host ?? '').replace(/:\d+$/, ''))) {
    response.statusCode = 421;
    response.end('this provider answers on loopback only\n');
  } else if (request.url.startsWith('/interaction/')) {
    interact(request, response).catch((error) => {
      console.error(error);
      response.statusCode = 400;
      response.setHeader('Content-Type', 'text/html; charset=utf-8');
      response.end(page('That did not work', '<p>The sign-in has ended. Start it again.</p>'));
    });
  } else {
    callback(request, response);
  }
});
server.listen(port, '127.0.0.1', () => console.log(`OpenID provider for development: ${issuer}`));
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}
