# Makes vectors.txt: python3 vectors.py >vectors.txt (Debian: python3-cryptography).
import hashlib, hmac, struct
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

def expand(key, label, n):
    out, t, i = b"", b"", 1
    while len(out) < n:
        t = hmac.new(key, t + label + bytes([i]), hashlib.sha256).digest()
        out, i = out + t, i + 1
    return out[:n]

def epoch(secret, side, number):
    chain, after = expand(secret, b"weft aes 1 " + side, 32), 0
    while True:
        b = expand(chain, b"weft aes 1 epoch", 68)
        chain, key, index = b[:32], b[32:64], struct.unpack(">I", b[64:])[0]
        if index == after:
            continue
        after = index
        if number == 0:
            return index, key
        number -= 1

print("# secret, who sends, epoch, counter, packet, datagram")
for i in range(24):
    secret = hashlib.sha256(b"secret %d" % (i // 6)).digest()
    side = [b"caller", b"callee"][i % 2]
    number = [0, 1, 2, 63][i % 4]
    counter = [0, 1, 8192, 2**32 - 1][i % 4]
    packet = (hashlib.sha512(b"packet %d" % i).digest() * 30)[: [0, 1, 40, 1420][i // 3 % 4]]
    index, key = epoch(secret, side, number)
    if i % 3 == 2:
        nonce = hashlib.sha256(b"nonce %d" % i).digest()[:12]
        head = struct.pack(">IIQ", 6 << 24, index, counter)
        datagram = head + nonce + AESGCM(key).encrypt(nonce, packet, head)
    else:
        nonce = struct.pack(">IQ", index, counter)
        head = struct.pack(">I", 5 << 24)
        datagram = head + nonce + AESGCM(key).encrypt(nonce, packet, head)
    print(secret.hex(), side.decode(), number, counter, packet.hex() or "-", datagram.hex())
