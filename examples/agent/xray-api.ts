import { type ChannelCredentials, Client, credentials, status } from '@grpc/grpc-js';
import protobuf from 'protobufjs';

/** Xray's counters by name: `user>>>UUID>>>traffic>>>uplink` and the like. */
export type Counters = Record<string, number>;

/** A user of an inbound, as AddUser takes it. */
export interface XrayUser {
  /** The name of the message type of the account, for instance `xray.proxy.vless.Account`. */
  accountType: keyof typeof accountTypes;
  account: Record<string, string>;
  email: string;
}

/**
 * The messages of Xray's API that this agent sends and reads, with their numbers on the wire. The numbers
 * have stayed the same from 25.12.8 to 26.7.28. Fields that the agent does not use are left out.
 */
const schema = protobuf.parse(
  `syntax = "proto3";
  message TypedMessage { string type = 1; bytes value = 2; }
  message User { uint32 level = 1; string email = 2; TypedMessage account = 3; }
  message AddUser { User user = 1; }
  message RemoveUser { string email = 1; }
  message AlterInbound { string tag = 1; TypedMessage operation = 2; }
  message Tag { string tag = 1; }
  message QueryStats { string pattern = 1; bool reset = 2; }
  message Stat { string name = 1; int64 value = 2; }
  message Stats { repeated Stat stat = 1; }
  message Name { string name = 1; }
  message Addresses { string name = 1; map<string, int64> ips = 2; }
  message OnlineUsers { repeated string users = 1; }
  message GetUsersStats { bool include_traffic = 1; bool reset = 2; }
  message OnlineAddress { string ip = 1; }
  message UserStat { string email = 1; repeated OnlineAddress ips = 2; }
  message UsersStats { repeated UserStat users = 1; }
  message SysStats { uint32 uptime = 10; }
  message Empty {}
  message VlessAccount { string id = 1; string flow = 2; }
  message VmessAccount { string id = 1; }
  message TrojanAccount { string password = 1; }
  message Shadowsocks2022Account { string key = 1; }
  message HysteriaAccount { string auth = 1; }`,
  { keepCase: true },
).root;

const accountTypes = {
  'xray.proxy.vless.Account': 'VlessAccount',
  'xray.proxy.vmess.Account': 'VmessAccount',
  'xray.proxy.trojan.Account': 'TrojanAccount',
  'xray.proxy.shadowsocks_2022.Account': 'Shadowsocks2022Account',
  'xray.proxy.hysteria.account.Account': 'HysteriaAccount',
} as const;

const handler = '/xray.app.proxyman.command.HandlerService';
const stats = '/xray.app.stats.command.StatsService';
/** Counters of 100,000 users are some 16 MB. */
const answerBytesMax = 268_435_456;
const callMsMax = 10_000;
const callsAtOnceMax = 100;

export type XrayApi = ReturnType<typeof openXrayApi>;

/**
 * Xray's gRPC interface: counters, who is online, users. The connection is made at the first call and
 * again after it broke, so a proxy may restart meanwhile.
 * @param port on loopback.
 */
export function openXrayApi(port: number) {
  const plain: ChannelCredentials = credentials.createInsecure();
  const client = new Client(`127.0.0.1:${port}`, plain, {
    'grpc.max_receive_message_length': answerBytesMax,
    // A new process on the same port must not wait for the pause after a failed connection.
    'grpc.initial_reconnect_backoff_ms': 50,
    'grpc.max_reconnect_backoff_ms': 500,
    'grpc.enable_http_proxy': 0,
    // Two agents in one process, as in tests, do not share a connection.
    'grpc.use_local_subchannel_pool': 1,
  });
  const call: Call = <T>(method: string, types: [string, string], request: object): Promise<T> =>
    unary<T>(client, method, types, request);
  const alter = (tag: string, type: string, operation: Uint8Array): Promise<unknown> =>
    call(`${handler}/AlterInbound`, ['AlterInbound', 'Empty'], {
      tag,
      operation: { type: `xray.app.proxyman.command.${type}`, value: operation },
    });
  return {
    /**
     * All counters, not reset: an agent that crashes after a reset would lose what it read.
     * @throws Error of gRPC if Xray does not answer, as every function here.
     */
    async counters(): Promise<Counters> {
      const { stat } = await call<{ stat: { name: string; value: number }[] }>(
        `${stats}/QueryStats`,
        ['QueryStats', 'Stats'],
        { pattern: '>>>traffic>>>' },
      );
      return Object.fromEntries(stat.map(({ name, value }) => [name, value]));
    },
    /**
     * By UUID: the addresses that open sessions come from. Xray leaves out loopback. From 26.4.13 on it is
     * one call. An Xray before 26.1.13 cannot list who is online, and the map is empty.
     */
    async online(): Promise<Map<string, string[]>> {
      const path = `${stats}/GetUsersStats`;
      const found = await orUndefined(
        call<{ users: { email: string; ips: { ip: string }[] }[] }>(
          path,
          ['GetUsersStats', 'UsersStats'],
          {},
        ),
        status.UNIMPLEMENTED,
      );
      if (found === undefined) return onlineOneByOne(call);
      return new Map(found.users.map(({ email, ips }) => [email, ips.map(({ ip }) => ip)]));
    },
    /** As `online`, of some links. Every version has this call. */
    addressesOf: (uuids: readonly string[]): Promise<Map<string, string[]>> =>
      addressesOf(call, uuids),
    addUser(tag: string, { accountType, account, email }: XrayUser): Promise<unknown> {
      const value = encode(accountTypes[accountType], account);
      const user = { email, account: { type: accountType, value } };
      return alter(tag, 'AddUserOperation', encode('AddUser', { user }));
    },
    removeUser: (tag: string, email: string): Promise<unknown> =>
      alter(tag, 'RemoveUserOperation', encode('RemoveUser', { email })),
    removeInbound: (tag: string): Promise<unknown> =>
      call(`${handler}/RemoveInbound`, ['Tag', 'Empty'], { tag }),
    removeOutbound: (tag: string): Promise<unknown> =>
      call(`${handler}/RemoveOutbound`, ['Tag', 'Empty'], { tag }),
    /** Seconds since the process started. */
    async uptimeSeconds(): Promise<number> {
      const path = `${stats}/GetSysStats`;
      return (await call<{ uptime: number }>(path, ['Empty', 'SysStats'], {})).uptime;
    },
    close: (): void => client.close(),
  };
}

type Call = <T>(method: string, types: [string, string], request: object) => Promise<T>;

async function onlineOneByOne(call: Call): Promise<Map<string, string[]>> {
  const found = await orUndefined(
    call<{ users: string[] }>(`${stats}/GetAllOnlineUsers`, ['Empty', 'OnlineUsers'], {}),
    status.UNIMPLEMENTED,
  );
  return addressesOf(call, found?.users.map((name) => name.split('>>>')[1] ?? '') ?? []);
}

async function addressesOf(call: Call, uuids: readonly string[]): Promise<Map<string, string[]>> {
  const online = new Map<string, string[]>();
  for (let from = 0; from < uuids.length; from += callsAtOnceMax) {
    const part = uuids.slice(from, from + callsAtOnceMax);
    const answers = await Promise.all(
      part.map((uuid) =>
        orUndefined(
          call<{ ips: Record<string, number> }>(
            `${stats}/GetStatsOnlineIpList`,
            ['Name', 'Addresses'],
            { name: `user>>>${uuid}>>>online` },
          ),
          status.NOT_FOUND,
        ),
      ),
    );
    for (const [index, answer] of answers.entries()) {
      const addresses = Object.keys(answer?.ips ?? {});
      if (addresses.length > 0) online.set(part[index] as string, addresses);
    }
  }
  return online;
}

function encode(type: string, message: object): Uint8Array {
  const messageType = schema.lookupType(type);
  return messageType.encode(messageType.fromObject(message)).finish();
}

function unary<T>(
  client: Client,
  method: string,
  [requestType, answerType]: [string, string],
  request: object,
): Promise<T> {
  const answer = schema.lookupType(answerType);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest<object, T>(
      method,
      (message) => Buffer.from(encode(requestType, message)),
      (bytes) => answer.toObject(answer.decode(bytes), { longs: Number, defaults: true }) as T,
      request,
      { deadline: Date.now() + callMsMax, waitForReady: false } as never,
      (error, value) => {
        if (error !== null) reject(error);
        else resolve(value as T);
      },
    );
  });
}

async function orUndefined<T>(answer: Promise<T>, code: status): Promise<T | undefined> {
  try {
    return await answer;
  } catch (thrown) {
    if ((thrown as { code?: unknown }).code === code) return undefined;
    throw thrown;
  }
}
