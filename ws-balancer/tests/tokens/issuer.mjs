// An issuer on somebody else's cryptography: prints a JWKS and a token of each algorithm, with the claims of its argument.
import { createHmac, generateKeyPairSync, randomBytes, sign } from 'node:crypto'

const claims = process.argv.at(-1)
const encode = (value) => Buffer.from(value).toString('base64url')

const secret = randomBytes(48)
const pairs = {
  RS256: generateKeyPairSync('rsa', { modulusLength: 3072 }),
  ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: generateKeyPairSync('ed25519'),
}
const signers = {
  HS256: (message) => createHmac('sha256', secret).update(message).digest(),
  RS256: (message) => sign('sha256', message, pairs.RS256.privateKey),
  ES256: (message) => sign('sha256', message, { key: pairs.ES256.privateKey, dsaEncoding: 'ieee-p1363' }),
  EdDSA: (message) => sign(null, message, pairs.EdDSA.privateKey),
}

const keys = [{ kty: 'oct', k: encode(secret) }]
for (const { publicKey } of Object.values(pairs)) {
  keys.push({ ...publicKey.export({ format: 'jwk' }), use: 'sig' })
}
const tokens = {}
for (const [alg, signer] of Object.entries(signers)) {
  const message = `${encode(JSON.stringify({ alg, typ: 'at+jwt' }))}.${encode(claims)}`
  tokens[alg] = `${message}.${encode(signer(Buffer.from(message)))}`
}
console.log(JSON.stringify({ jwks: { keys }, tokens }))
