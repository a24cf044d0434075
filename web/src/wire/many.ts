/**
 * One socket for many nodes: `ws://HOST/api/v1/stream/many`.
 *
 * This module knows the socket and nothing of what goes over it: it says who we are first, then passes lists in and requests out.
 */

import { decode } from '@msgpack/msgpack';
import type { Credentials, Listed } from './messages';

export interface Wire {
  send(request: object): void;
  close(): void;
}

export interface WireHandlers {
  onOpen(): void;
  onListed(listed: Listed, bytes: number): void;
  /** `opened` is false when the handshake was refused, as far as a browser tells. */
  onClose(code: number, reason: string, opened: boolean): void;
}

export type Connect = (base: string, credentials: Credentials | null, handlers: WireHandlers) => Wire;

export const connectMany: Connect = (base, credentials, handlers) => {
  const socket = new WebSocket(`${base.replace(/^http/, 'ws')}/stream/many?envelope_format=msgpack`);
  let opened = false;
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => {
    opened = true;
    if (credentials) socket.send(JSON.stringify({ type: 'auth', ...credentials }));
    handlers.onOpen();
  };
  socket.onmessage = ({ data }) => {
    const bytes = new Uint8Array(data as ArrayBuffer);
    handlers.onListed(decode(bytes) as Listed, bytes.length);
  };
  socket.onclose = ({ code, reason }) => handlers.onClose(code, reason, opened);
  return {
    send: (request) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(request)),
    close: () => {
      socket.onclose = socket.onmessage = null;
      socket.close();
    },
  };
};
