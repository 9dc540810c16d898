/**
 * The cipher of VMess that client apps are told. Not `auto`: over TLS, sing-box takes that for no encryption at
 * all, and Xray has that no more. Every app has this one.
 */
export const vmessCipher = 'aes-128-gcm';
