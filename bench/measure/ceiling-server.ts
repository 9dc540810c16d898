import uws from 'uWebSockets.js';

/** Reads every body to its end and answers 200. Tells its port over IPC, and ends with its parent. */
const app = uws.App().post('/*', (response) => {
  response.onAborted(() => undefined);
  response.onData((_chunk, isLast) => {
    if (isLast) response.end('{"ok":true}');
  });
});
app.listen('127.0.0.1', 0, (socket) => {
  process.send?.({ port: uws.us_socket_local_port(socket as uws.us_listen_socket) });
});
process.once('disconnect', () => process.exit(0));
