/** Of `core protocol add --help`. docs/protocols.md has an example of every protocol. */
export const protocolSettingsHelp = `\
Settings (all optional unless marked; a name that is not listed is refused):
  every protocol   listen       address to listen on (0.0.0.0)
                   publicHost   host in share links (the node's host, else its ip)
                   publicPort   port in share links (the port)
  VLESS, VMESS     network      raw, ws, grpc or xhttp (raw)
  and TROJAN       security     none or tls, with VLESS also reality (none)
                   ws           { path, host }
                   grpc         { serviceName }
                   xhttp        { path, host, mode }
                   tls          { certificateFile, keyFile, serverName, alpn }: paths on the node;
                                the files are needed with security tls
                   sniffing     whether rules may go by domain (true)
  VLESS            reality      { target, serverNames, privateKey, publicKey, shortIds,
                                minClientVer }; target, a host:port, is needed with security
                                reality; keys and short ids are made where none are given
                   flow         xtls-rprx-vision
  SHADOWSOCKS      method       2022-blake3-aes-128-gcm or 2022-blake3-aes-256-gcm (the first)
                   serverKey    16 or 32 bytes in base64 (made)
                   network      tcp,udp or tcp or udp (tcp,udp)
                   sniffing     as above
  HYSTERIA2        tls          needed: { certificateFile, keyFile, serverName }
                   udpIdleTimeout   seconds (Xray's own, 60)
                   masquerade   { type: proxy, url, rewriteHost }, { type: file, dir } or
                                { type: string, content, statusCode }
                   sniffing     as above
  MTPROTO          tlsDomain    site that the TLS mode looks like (www.cloudflare.com)
                   modes        { classic, secure, tls } (tls only)
                   adTag        32 hex digits
                   maxTcpConns  connections of one user
                   maxUniqueIps addresses of one user
`;
