// Calls by clients as they are published, each once; prints how each call ended, as JSON.
// Usage: node clients.mjs FOLDER-WITH-NODE_MODULES '{"url": …, "token": …, "descriptors": FILE}'
import fs from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(process.argv[2] + '/');
const { createFileRegistry, fromBinary } = require('@bufbuild/protobuf');
const { FileDescriptorSetSchema } = require('@bufbuild/protobuf/wkt');
const { createClient, Code, ConnectError } = require('@connectrpc/connect');
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require('@connectrpc/connect-node');
// What a browser has.
globalThis.XMLHttpRequest = require('xhr2');
const grpcWeb = require('grpc-web');

const { url, token, descriptors } = JSON.parse(process.argv[3]);
const service = createFileRegistry(fromBinary(FileDescriptorSetSchema, fs.readFileSync(descriptors)))
  .getService('tests.Guarded');
const headers = token ? { authorization: `Bearer ${token}` } : {};
const outcomes = {};

function ended(error) {
  const connect = ConnectError.from(error);
  return {
    code: connect.code,
    name: Code[connect.code],
    message: connect.rawMessage,
    retry: connect.metadata.get('retry-after'),
    challenge: connect.metadata.get('www-authenticate'),
    details: connect.details.map(({ type, value }) => [type, Buffer.from(value).toString('base64')]),
  };
}

async function outcome(name, call) {
  try {
    outcomes[name] = { code: 0, answers: await call() };
  } catch (error) {
    outcomes[name] = error instanceof ConnectError ? ended(error) : { code: -1, message: String(error) };
  }
}

async function count(stream) {
  let answers = 0;
  for await (const _ of stream) answers += 1;
  return answers;
}

async function* requests() {
  yield {};
}

// All four kinds of call.
async function everyKind(name, transport) {
  const client = createClient(service, transport);
  await outcome(`${name} unary`, async () => (await client.unary({}, { headers })) && 1);
  await outcome(`${name} server stream`, () => count(client.serverStream({}, { headers })));
  await outcome(`${name} client stream`, async () => (await client.clientStream(requests(), { headers })) && 1);
  await outcome(`${name} bidi`, () => count(client.bidi(requests(), { headers })));
}

const options = { baseUrl: url, httpVersion: '2' };
await everyKind('connect proto', createConnectTransport({ ...options, useBinaryFormat: true }));
await everyKind('connect json', createConnectTransport({ ...options, useBinaryFormat: false }));
await everyKind('grpc', createGrpcTransport(options));
await everyKind('grpc-web of connect', createGrpcWebTransport(options));
const getting = createClient(service, createConnectTransport({ ...options, useHttpGet: true }));
await outcome('connect get', async () => (await getting.unary({}, { headers })) && 1);

function ofGoogle(format, name, type) {
  const client = new grpcWeb.GrpcWebClientBase({ format });
  const path = `/tests.Guarded/${name}`;
  const method = new grpcWeb.MethodDescriptor(path, type, Object, Object, () => new Uint8Array(), (bytes) => bytes);
  return new Promise((resolve) => {
    let answers = 0;
    const failed = ({ code, message, metadata }) =>
      resolve({
        code,
        message,
        retry: metadata?.['retry-after'] ?? null,
        challenge: metadata?.['www-authenticate'] ?? null,
        status: metadata?.['grpc-status-details-bin'] ?? null,
      });
    if (type === grpcWeb.MethodType.UNARY) {
      client.rpcCall(url + path, {}, headers, method, (error) => (error ? failed(error) : resolve({ code: 0, answers: 1 })));
    } else {
      const stream = client.serverStreaming(url + path, {}, headers, method);
      stream.on('data', () => (answers += 1));
      stream.on('error', failed);
      stream.on('end', () => resolve({ code: 0, answers }));
    }
  });
}

outcomes['grpc-web binary unary'] = await ofGoogle('binary', 'Unary', grpcWeb.MethodType.UNARY);
outcomes['grpc-web text unary'] = await ofGoogle('text', 'Unary', grpcWeb.MethodType.UNARY);
outcomes['grpc-web text server stream'] = await ofGoogle('text', 'ServerStream', grpcWeb.MethodType.SERVER_STREAMING);

fs.writeSync(1, JSON.stringify(outcomes));
process.exit(0);
