// A partner's program: posts an entry for each account that it reads, with a token that it renews.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const { API, CA_FILE, CLIENT_ID, CLIENT_SECRET, TOKEN_URL } = process.env;

// The life, in milliseconds, that a token must still have when it is sent.
const AHEAD = 60_000;

class Tokens {
  #token;
  #end = 0;
  #fetching;

  /** Returns the token at hand, or another if it soon expires; one request serves all who wait. */
  async current() {
    if (this.#token && Date.now() + AHEAD < this.#end) return this.#token;
    this.#fetching ??= this.#fetch().finally(() => { this.#fetching = undefined; });
    try {
      await this.#fetching;
    } catch (error) {
      if (!this.#token || Date.now() > this.#end) throw error;
    }
    return this.#token;
  }

  /** Forgets a token that the API has refused, unless another has replaced it already. */
  drop(refused) {
    if (this.#token === refused) this.#token = undefined;
  }

  async #fetch() {
    const asked = Date.now();
    const response = await fetch(TOKEN_URL, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'client_credentials', client_id: CLIENT_ID, client_secret: CLIENT_SECRET,
      }),
      redirect: 'error',
      signal: AbortSignal.timeout(10_000),
    });
    if (!response.ok) throw new Error(`no token: the issuer answered ${response.status}`);
    const { access_token: token, expires_in: seconds } = await response.json();
    this.#token = token;
    this.#end = asked + seconds * 1000;
  }
}

const tokens = new Tokens();

// gRPC asks for the metadata of every call, and sends it only over TLS.
const bearer = grpc.credentials.createFromMetadataGenerator((_, done) => {
  tokens.current().then((token) => {
    const metadata = new grpc.Metadata();
    metadata.set('authorization', `Bearer ${token}`);
    done(null, metadata);
  }, (error) => done(Object.assign(error, { code: grpc.status.UNAVAILABLE })));
});
// CA_FILE is only for an API whose certificate no public authority has signed.
const tls = grpc.credentials.createSsl(CA_FILE ? readFileSync(CA_FILE) : null);
const definition = loadSync(new URL('../ledger.proto', import.meta.url).pathname, { keepCase: true });
const { LedgerService } = grpc.loadPackageDefinition(definition).authz.demo.v1;
const ledger = new LedgerService(API, grpc.credentials.combineChannelCredentials(tls, bearer));

function post(request) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + 20_000;
    ledger.PostEntry(request, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

/** Makes a call, and repeats it once, with another token, if the API refuses the first one. */
async function twice(call) {
  const token = await tokens.current();
  try {
    return await call();
  } catch (error) {
    if (error.code !== grpc.status.UNAUTHENTICATED) throw error;
    tokens.drop(token);
    return call();
  }
}

try {
  for await (const account of createInterface({ input: process.stdin })) {
    const reply = await twice(() => post({ draft: { account, amount: 1250, currency: 'EUR' } }));
    console.log('posted for', reply.entry.org_id);
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  ledger.close();
}
