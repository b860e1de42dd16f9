// Completes a device flow without a browser: what a person does on the pages, form by form. For ./dev up, tests and CI.
//   node approve.mjs ISSUER USER_CODE USER
const [issuer, code, user] = process.argv.slice(2);
if (!issuer || !code || !user) {
  console.error('usage: node approve.mjs ISSUER USER_CODE USER');
  process.exit(2);
}

const cookies = new Map();
async function visit(url, form) {
  for (let hop = 0; hop < 10; hop += 1) {
    const response = await fetch(url, {
      method: form ? 'POST' : 'GET',
      body: form,
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      signal: AbortSignal.timeout(10_000),
    });
    // Debian's Node 18 has no getSetCookie(); the date in a cookie has a comma of its own.
    for (const line of (response.headers.get('set-cookie') ?? '').split(/, (?=[\w.]+=)/).filter(Boolean)) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) cookies.set(name, value);
      else cookies.delete(name);
    }
    const next = response.headers.get('location');
    if (!next) return { url, status: response.status, html: await response.text() };
    url = new URL(next, url).href;
    form = undefined;
  }
  throw new Error('too many redirects');
}

const attribute = (tag, name) => new RegExp(`\\b${name}="([^"]*)"`).exec(tag)?.[1];
function fill(page) {
  const form = /<form[^>]*>/.exec(page.html)?.[0];
  if (!form) throw new Error(`no form (status ${page.status})`);
  const fields = new URLSearchParams();
  for (const [input] of page.html.matchAll(/<input[^>]*>/g)) {
    const name = attribute(input, 'name');
    if (name) fields.set(name, { login: user, password: '-', user_code: code }[name] ?? attribute(input, 'value') ?? '');
  }
  return [new URL(attribute(form, 'action') ?? page.url, page.url).href, fields];
}

try {
  let page = await visit(`${issuer}/device`);
  for (let step = 0; !page.html.includes('id="done"'); step += 1) {
    if (step === 6 || page.html.includes('not valid any more')) throw new Error('the code is unknown, used or expired');
    page = await visit(...fill(page));
  }
  console.log(`signed in as ${user}`);
} catch (error) {
  console.error(`Error: the device flow was not completed: ${error.cause?.message ?? error.message}`);
  process.exit(1);
}
