// A TLS server or client on Node's OpenSSL 3.5, the one peer here with X25519MLKEM768 and ML-DSA.
// node.js server|client OPTIONS-AS-JSON; prints one JSON line per event: {"port": N}, then what each connection negotiated.
'use strict';
const fs = require('fs');
const tls = require('tls');

const [, , role, text] = process.argv;
const options = JSON.parse(text);
const say = (value) => process.stdout.write(JSON.stringify(value) + '\n');
const read = (path) => (path ? fs.readFileSync(path) : undefined);

const shared = {
  cert: read(options.cert), key: read(options.key), ca: read(options.ca),
  minVersion: options.version || 'TLSv1.2', maxVersion: options.version || 'TLSv1.3',
  ciphers: options.ciphers, sigalgs: options.sigalgs || undefined, ecdhCurve: options.groups || 'auto',
  ALPNProtocols: options.alpn.length ? options.alpn : undefined,
};

function describe(socket) {
  const cipher = socket.getCipher() || {};
  const peer = socket.getPeerCertificate();
  return {
    version: socket.getProtocol(), suite: cipher.standardName, group: options.groups || '', resumed: socket.isSessionReused(),
    alpn: socket.alpnProtocol || '', subject: peer && peer.subject ? peer.subject.CN : '',
    temporary_key: socket.getEphemeralKeyInfo ? socket.getEphemeralKeyInfo() : null,
    exported: socket.exportKeyingMaterial(32, 'EXPERIMENTAL-nss-pk11', Buffer.from('context')).toString('hex'),
  };
}

if (role === 'server') {
  const server = tls.createServer({
    ...shared, requestCert: options.client_auth !== 'none', rejectUnauthorized: options.client_auth === 'require',
  }, (socket) => {
    const seen = describe(socket);
    say(seen);
    socket.once('data', () => socket.end('HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n' + JSON.stringify(seen)));
    socket.on('error', (error) => say({ error: String(error) }));
  });
  server.on('tlsClientError', (error) => say({ error: String(error) }));
  server.listen(0, '127.0.0.1', () => say({ port: server.address().port }));
} else {
  let session;
  const connect = (again) => {
    const socket = tls.connect({
      ...shared, host: '127.0.0.1', port: options.port, servername: options.server_name || '',
      rejectUnauthorized: Boolean(options.ca), session,
      ...(options.server_name ? {} : { checkServerIdentity: () => undefined }),
    }, () => socket.write(Buffer.from(options.request, 'base64')));
    const chunks = [];
    let seen;
    socket.once('secureConnect', () => { seen = describe(socket); });
    socket.on('session', (value) => { session = value; });
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', (error) => { say({ error: String(error) }); process.exitCode = 1; });
    socket.on('close', (failed) => {
      if (failed || !seen) return;
      if (again) connect(false);
      else say({ ...seen, answer: Buffer.concat(chunks).toString('base64') });
    });
  };
  connect(options.resume);
}
