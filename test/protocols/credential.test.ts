import t from 'tap';
import {
  credentialFault,
  credentialUuid,
  derivedCredential,
} from '../../src/protocols/credential.ts';

const uuid = '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7eaa';

t.test('a proxy reads a credential as a UUID', async (t) => {
  const same = [
    uuid,
    uuid.toUpperCase(),
    uuid.replaceAll('-', ''),
    `{${uuid}}`,
    `urn:uuid:${uuid}`,
    // Xray reads what follows the digits as nothing, up to 36 bytes.
    `${uuid.replaceAll('-', '')}zzzz`,
  ];
  for (const text of same) t.equal(credentialUuid(text), uuid, text);
});

t.test('any other text becomes the UUID of version 5 that Xray gives it', async (t) => {
  // What `xray uuid -i TEXT` of 26.7.28 prints.
  t.equal(credentialUuid('example'), 'feb54431-301b-52bb-a6dd-e1e93e81bb9e');
  t.equal(credentialUuid('alice-phone'), 'f6cd1870-2ccb-547d-9487-97329ebf0a9e');
  t.equal(credentialUuid('Grüße'), '0447f1cd-8daa-5f32-b008-2ca3c1590240');
  const texts = [
    'alice-phone',
    'Grüße',
    'x'.repeat(31),
    'x'.repeat(36),
    'x'.repeat(200),
    `${uuid}0`,
  ];
  for (const text of texts) {
    t.match(
      credentialUuid(text),
      /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
  }
  t.equal(new Set(texts.map(credentialUuid)).size, texts.length);
});

t.test(
  'a derived credential is a UUID of version 4, another one for each secret and protocol',
  async (t) => {
    const other = uuid.replace('0', '1');
    const derived = [
      derivedCredential(uuid, 1),
      derivedCredential(uuid, 2),
      derivedCredential(other, 1),
    ];
    for (const one of derived) {
      t.match(one, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
    t.equal(new Set(derived).size, 3);
    t.equal(derivedCredential(uuid, 1), derived[0]);
  },
);

t.test('a credential is any text without control characters', async (t) => {
  for (const text of ['a', ' pass,word ', 'Grüße "du"', 'x'.repeat(256)]) {
    t.equal(credentialFault(text), undefined, text);
  }
  t.equal(credentialFault(''), 'Must not be empty');
  t.equal(credentialFault('x'.repeat(257)), 'Must have at most 256 characters');
  for (const text of ['a\nb', 'a\u0000', 'a\ud800']) {
    t.equal(credentialFault(text), 'Must not hold control characters');
  }
});
