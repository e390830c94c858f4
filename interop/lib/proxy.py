"""A TCP proxy in front of the broker, whose connections a case can cut without any AMQP goodbye."""

import select
import socket
import struct
import threading


class Proxy(object):
    def __init__(self, host, port):
        self._broker = (host, port)
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.host, self.port = self._listener.getsockname()
        self._peers = {}
        self._cut_requests, self._cut_request = socket.socketpair()
        self._was_cut = threading.Event()
        thread = threading.Thread(target=self._serve)
        thread.daemon = True
        thread.start()

    def cut(self):
        """Resets every connection; later ones are served again."""
        self._was_cut.clear()
        self._cut_request.sendall(b"x")
        if not self._was_cut.wait(10):
            raise RuntimeError("the proxy does not answer")

    def _serve(self):
        while True:
            sources = [self._cut_requests, self._listener] + list(self._peers)
            for source in select.select(sources, [], [])[0]:
                if source is self._cut_requests:
                    source.recv(1)
                    for end in list(self._peers):
                        self._reset(end)
                    self._was_cut.set()
                elif source is self._listener:
                    client, _ = source.accept()
                    broker = socket.create_connection(self._broker, 10)
                    self._peers.update({client: broker, broker: client})
                elif source in self._peers:
                    self._forward(source)

    def _forward(self, source):
        try:
            data = source.recv(65536)
            if data:
                self._peers[source].sendall(data)
                return
        except socket.error:
            pass
        other = self._peers.pop(source)
        del self._peers[other]
        source.close()
        other.close()

    def _reset(self, end):
        # A linger time of zero makes close() send a reset, so that neither side sees an orderly end of stream.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        del self._peers[end]
        end.close()
