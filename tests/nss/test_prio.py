"""NSPR sockets without SSL (prio.h, prnetdb.h, prinrval.h): the other end is Python's own socket."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import prinrval, prio, prnetdb
from nss_pk11.nss.prio import PRFileDesc, PRNetAddr, PRPollDesc, PRSocketOptionData

SECOND = prinrval.PR_SecondsToInterval(1)
SOON = prinrval.PR_MillisecondsToInterval(50)
READ, WRITE = prio.PR_POLL_READ, prio.PR_POLL_WRITE


def nonblocking(fd: PRFileDesc, on: bool = True) -> None:
    prio.PR_SetSocketOption(fd, PRSocketOptionData(prio.PR_SockOpt_Nonblocking, on))


def loopback(port: int) -> PRNetAddr:
    return prnetdb.PR_InitializeNetAddr(prnetdb.PR_IpAddrLoopback, port)


@pytest.fixture
def listener() -> Iterator[PRFileDesc]:
    fd = prio.PR_NewTCPSocket()
    prio.PR_SetSocketOption(fd, PRSocketOptionData(prio.PR_SockOpt_Reuseaddr, True))
    prio.PR_Bind(fd, loopback(0))
    prio.PR_Listen(fd, 5)
    yield fd
    prio.PR_Close(fd)


@pytest.fixture
def pair(listener: PRFileDesc) -> Iterator[tuple[PRFileDesc, socket.socket]]:
    """Ours, and the peer's."""
    with socket.create_connection(("127.0.0.1", prio.PR_GetSockName(listener).port), 10) as peer:
        fd, address = prio.PR_Accept(listener, SECOND)
        assert (address.ip, address.port) == peer.getsockname()
        yield fd, peer
        if prio.PR_FileDesc2NativeHandle(fd) >= 0:
            prio.PR_Close(fd)


class TestConnecting:
    def test_connect_accept_and_names(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = prio.PR_NewTCPSocket()
            prio.PR_Connect(fd, loopback(server.getsockname()[1]), SECOND)
            peer, address = server.accept()
            assert (prio.PR_GetSockName(fd).ip, prio.PR_GetSockName(fd).port) == address
            assert prio.PR_GetPeerName(fd) == loopback(server.getsockname()[1])
            assert prio.PR_FileDesc2NativeHandle(fd) > 2
            peer.close()
            prio.PR_Close(fd)
            assert prio.PR_FileDesc2NativeHandle(fd) == -1

    def test_ipv6(self) -> None:
        fd = prio.PR_OpenTCPSocket(prio.PR_AF_INET6)
        prio.PR_Bind(fd, prnetdb.PR_SetNetAddr(prnetdb.PR_IpAddrLoopback, prio.PR_AF_INET6, 0))
        prio.PR_Listen(fd, 1)
        name = prio.PR_GetSockName(fd)
        with socket.create_connection(("::1", name.port), 10):
            accepted, address = prio.PR_Accept(fd, SECOND)
            assert (address.family, address.ip) == (prio.PR_AF_INET6, "::1")
            prio.PR_Close(accepted)
        prio.PR_Close(fd)

    def test_a_family_that_is_none(self, error: Callable[[], str]) -> None:
        with pytest.raises(NSPRError, match="PR_ADDRESS_NOT_SUPPORTED_ERROR"):
            prio.PR_OpenTCPSocket(200)
        assert error() == "PR_ADDRESS_NOT_SUPPORTED_ERROR"

    def test_refused(self, listener: PRFileDesc) -> None:
        closed = prio.PR_NewTCPSocket()
        prio.PR_Bind(closed, loopback(0))
        fd = prio.PR_NewTCPSocket()
        with pytest.raises(NSPRError, match="PR_CONNECT_REFUSED_ERROR"):
            prio.PR_Connect(fd, prio.PR_GetSockName(closed), SECOND)
        prio.PR_Close(fd)
        prio.PR_Close(closed)

    def test_an_address_in_use(self, listener: PRFileDesc) -> None:
        fd = prio.PR_NewTCPSocket()
        with pytest.raises(NSPRError, match="PR_ADDRESS_IN_USE_ERROR"):
            prio.PR_Bind(fd, prio.PR_GetSockName(listener))
        prio.PR_Bind(fd, loopback(0))
        with pytest.raises(NSPRError, match="PR_SOCKET_ADDRESS_IS_BOUND_ERROR"):
            prio.PR_Bind(fd, loopback(0))
        with pytest.raises(NSPRError, match="PR_NOT_CONNECTED_ERROR"):
            prio.PR_GetPeerName(fd)
        prio.PR_Close(fd)

    def test_non_blocking_connect_goes_on(self, listener: PRFileDesc) -> None:
        fd = prio.PR_NewTCPSocket()
        nonblocking(fd)
        with pytest.raises(NSPRError, match="PR_IN_PROGRESS_ERROR"):
            prio.PR_Connect(fd, prio.PR_GetSockName(listener), SECOND)
        with pytest.raises(NSPRError, match="PR_IN_PROGRESS_ERROR"):
            prio.PR_ConnectContinue(fd, 0)
        pd = PRPollDesc(fd, WRITE)
        assert prio.PR_Poll([pd], SECOND) == 1
        prio.PR_GetConnectStatus(pd)
        accepted, _ = prio.PR_Accept(listener, SECOND)
        prio.PR_Close(accepted)
        prio.PR_Close(fd)
        with pytest.raises(NSPRError, match="PR_BAD_DESCRIPTOR_ERROR"):
            prio.PR_GetConnectStatus(PRPollDesc(None))

    def test_non_blocking_connect_is_refused(self) -> None:
        closed, fd = prio.PR_NewTCPSocket(), prio.PR_NewTCPSocket()
        prio.PR_Bind(closed, loopback(0))
        nonblocking(fd)
        with pytest.raises(NSPRError, match="PR_IN_PROGRESS_ERROR"):
            prio.PR_Connect(fd, prio.PR_GetSockName(closed))
        pd = PRPollDesc(fd, WRITE)
        assert prio.PR_Poll([pd], SECOND) == 1
        with pytest.raises(NSPRError, match="PR_CONNECT_REFUSED_ERROR"):
            prio.PR_ConnectContinue(fd, pd.out_flags)
        prio.PR_Close(fd)
        prio.PR_Close(closed)

    def test_accept_waits_as_long_as_it_is_told(self, listener: PRFileDesc) -> None:
        begun = time.monotonic()
        with pytest.raises(NSPRError, match="PR_IO_TIMEOUT_ERROR"):
            prio.PR_Accept(listener, SOON)
        assert time.monotonic() - begun >= 0.04
        with pytest.raises(NSPRError, match="PR_IO_TIMEOUT_ERROR"):
            prio.PR_Accept(listener, prinrval.PR_INTERVAL_NO_WAIT)

    def test_what_is_accepted_blocks_as_the_listener_does(self, listener: PRFileDesc) -> None:
        nonblocking(listener)
        with pytest.raises(NSPRError, match="PR_WOULD_BLOCK_ERROR"):
            prio.PR_Accept(listener)
        with socket.create_connection(("127.0.0.1", prio.PR_GetSockName(listener).port), 10):
            assert prio.PR_Poll([PRPollDesc(listener, READ)], SECOND) == 1
            fd, _ = prio.PR_Accept(listener)
            data = PRSocketOptionData(prio.PR_SockOpt_Nonblocking)
            prio.PR_GetSocketOption(fd, data)
            assert data.value is True
            prio.PR_Close(fd)

    def test_sockets_of_the_system_and_of_python(self) -> None:
        one, other = socket.socketpair()
        ours, number = prio.PR_ImportTCPSocket(one), other.detach()
        theirs = prio.PR_ImportTCPSocket(number)
        assert prio.PR_FileDesc2NativeHandle(theirs) == number
        prio.PR_Write(ours, b"hello")
        assert prio.PR_Read(theirs, 100) == b"hello"
        prio.PR_Close(ours)
        assert prio.PR_Read(theirs, 100) == b""
        prio.PR_Close(theirs)

    def test_what_is_no_socket_is_not_imported(self, tmp_path: Path) -> None:
        with (tmp_path / "file").open("w") as file, pytest.raises(NSPRError, match="PR_NOT_SOCKET_ERROR"):
            prio.PR_ImportTCPSocket(file.fileno())


class TestData:
    def test_both_ways_and_the_end(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        fd, peer = pair
        peer.sendall(b"question")
        assert prio.PR_Read(fd, 100) == b"question"
        assert prio.PR_Writev(fd, [b"ans", b"wer"]) == 6
        assert peer.recv(100) == b"answer"
        peer.shutdown(socket.SHUT_WR)
        assert prio.PR_Read(fd, 100) == b""

    def test_peeking_leaves_it(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        fd, peer = pair
        peer.sendall(b"twice")
        assert prio.PR_Recv(fd, 3, prio.PR_MSG_PEEK, SECOND) == b"twi"
        assert prio.PR_Available(fd) == 5
        assert prio.PR_Recv(fd, 100, 0, SECOND) == b"twice"
        assert prio.PR_Available(fd) == 0

    def test_a_timeout(self, pair: tuple[PRFileDesc, socket.socket], error: Callable[[], str]) -> None:
        with pytest.raises(NSPRError, match="PR_IO_TIMEOUT_ERROR"):
            prio.PR_Recv(pair[0], 100, 0, SOON)
        assert error() == "PR_IO_TIMEOUT_ERROR"

    def test_a_blocking_write_sends_all(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        fd, peer = pair
        data, received = bytes(range(256)) * 40000, bytearray()

        def read() -> None:
            while len(received) < len(data):
                received.extend(peer.recv(1 << 20))

        reader = threading.Thread(target=read)
        reader.start()
        assert prio.PR_Send(fd, memoryview(data), 0, 10 * SECOND) == len(data)
        reader.join(10)
        assert bytes(received) == data

    def test_a_write_that_nobody_reads_times_out(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        with pytest.raises(NSPRError, match="PR_IO_TIMEOUT_ERROR"):
            prio.PR_Send(pair[0], bytes(50_000_000), 0, SOON)

    def test_non_blocking(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        fd, peer = pair
        nonblocking(fd)
        with pytest.raises(NSPRError, match="PR_WOULD_BLOCK_ERROR"):
            prio.PR_Read(fd, 1)
        sent = prio.PR_Write(fd, bytes(50_000_000))
        assert 0 < sent < 50_000_000
        with pytest.raises(NSPRError, match="PR_WOULD_BLOCK_ERROR"):
            _write_for_ever(fd)
        peer.sendall(b"x")
        assert prio.PR_Poll([PRPollDesc(fd, READ)], SECOND) == 1
        assert prio.PR_Read(fd, 1) == b"x"

    def test_a_reset(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        fd, peer = pair
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(NSPRError, match="PR_CONNECT_RESET_ERROR"):
            prio.PR_Read(fd, 100)

    def test_shutting_down(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        fd, peer = pair
        prio.PR_Shutdown(fd, prio.PR_SHUTDOWN_SEND)
        assert peer.recv(100) == b""
        with pytest.raises(NSPRError, match="PR_CONNECT_RESET_ERROR"):  # EPIPE
            prio.PR_Write(fd, b"more")
        prio.PR_Shutdown(fd, prio.PR_SHUTDOWN_RCV)
        assert prio.PR_Read(fd, 100) == b""
        with pytest.raises(NSPRError, match="PR_INVALID_ARGUMENT_ERROR"):
            prio.PR_Shutdown(fd, 3)

    def test_what_cannot_be_asked(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        fd, _ = pair
        for call in (
            lambda: prio.PR_Recv(fd, -1),
            lambda: prio.PR_Recv(fd, 1, 0x40),
            lambda: prio.PR_Send(fd, b"", prio.PR_MSG_PEEK),
        ):
            with pytest.raises(NSPRError, match="PR_INVALID_ARGUMENT_ERROR"):
                call()

    def test_a_closed_descriptor(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        fd, _ = pair
        prio.PR_Close(fd)
        for call in (
            lambda: prio.PR_Close(fd),
            lambda: prio.PR_Read(fd, 1),
            lambda: prio.PR_Write(fd, b"x"),
            lambda: prio.PR_GetSockName(fd),
            lambda: prio.PR_Available(fd),
        ):
            with pytest.raises(NSPRError, match="PR_BAD_DESCRIPTOR_ERROR"):
                call()

    def test_one_thread_reads_while_another_writes(self) -> None:
        one, other = prio.PR_NewTCPSocketPair()
        reader = threading.Thread(target=lambda: prio.PR_Read(one, 100))
        reader.start()
        prio.PR_Write(one, b"out")
        assert prio.PR_Read(other, 100) == b"out"
        prio.PR_Write(other, b"in")
        reader.join(10)
        assert not reader.is_alive()
        prio.PR_Close(one)
        prio.PR_Close(other)

    def test_a_descriptor_that_nobody_closes_says_so(self) -> None:
        with pytest.warns(ResourceWarning):
            _forget_a_socket()


def _write_for_ever(fd: PRFileDesc) -> None:
    while True:
        prio.PR_Write(fd, bytes(1000))


def _forget_a_socket() -> None:
    prio.PR_NewTCPSocket()
    gc.collect()


class TestPoll:
    def test_reading_writing_and_nothing(self) -> None:
        one, other = prio.PR_NewTCPSocketPair()
        reads, writes, none = PRPollDesc(one, READ, 99), PRPollDesc(other, WRITE), PRPollDesc(None, READ, 99)
        assert prio.PR_Poll([reads, writes, none], SECOND) == 1
        assert (reads.out_flags, writes.out_flags, none.out_flags) == (0, WRITE, 0)
        prio.PR_Write(other, b"x")
        both = PRPollDesc(one, READ | WRITE)
        assert prio.PR_Poll([both, writes], SECOND) == 2
        assert both.out_flags == READ | WRITE
        prio.PR_Close(one)
        prio.PR_Close(other)

    def test_a_timeout_is_0(self) -> None:
        one, other = prio.PR_NewTCPSocketPair()
        assert prio.PR_Poll([PRPollDesc(one, READ)], SOON) == 0
        assert prio.PR_Poll([], prinrval.PR_INTERVAL_NO_WAIT) == 0
        prio.PR_Close(one)
        prio.PR_Close(other)

    def test_the_same_descriptor_twice(self) -> None:
        one, other = prio.PR_NewTCPSocketPair()
        reads, writes = PRPollDesc(one, READ), PRPollDesc(one, WRITE)
        assert prio.PR_Poll([reads, writes], SECOND) == 1
        assert (reads.out_flags, writes.out_flags) == (0, WRITE)
        prio.PR_Close(one)
        prio.PR_Close(other)

    def test_an_end_and_a_closed_descriptor(self) -> None:
        one, other = prio.PR_NewTCPSocketPair()
        prio.PR_Close(other)
        ended, closed = PRPollDesc(one, READ), PRPollDesc(other, READ)
        assert prio.PR_Poll([ended, closed], SECOND) == 2
        assert ended.out_flags & READ
        assert ended.out_flags & prio.PR_POLL_HUP
        assert closed.out_flags == prio.PR_POLL_NVAL
        prio.PR_Close(one)

    def test_urgent_data(self, pair: tuple[PRFileDesc, socket.socket]) -> None:
        fd, peer = pair
        peer.send(b"!", socket.MSG_OOB)
        pd = PRPollDesc(fd, prio.PR_POLL_EXCEPT)
        assert prio.PR_Poll([pd], SECOND) == 1
        assert pd.out_flags == prio.PR_POLL_EXCEPT

    def test_an_error_is_said(self) -> None:
        fd = prio.PR_NewTCPSocket()
        with pytest.raises(NSPRError):
            prio.PR_Connect(fd, PRNetAddr(prio.PR_AF_INET, "127.0.0.1", 1), SECOND)
        pd = PRPollDesc(fd, WRITE)
        assert prio.PR_Poll([pd], SECOND) == 1
        assert pd.out_flags & prio.PR_POLL_HUP
        prio.PR_Close(fd)


class TestOptions:
    @pytest.mark.parametrize(
        ("option", "value"),
        [
            (prio.PR_SockOpt_Nonblocking, True),
            (prio.PR_SockOpt_Reuseaddr, True),
            (prio.PR_SockOpt_Keepalive, True),
            (prio.PR_SockOpt_NoDelay, True),
            (prio.PR_SockOpt_Broadcast, True),
            (prio.PR_SockOpt_Reuseport, True),
            (prio.PR_SockOpt_Linger, prio.PRLinger(True, 3)),
            (prio.PR_SockOpt_IpTimeToLive, 33),
            (prio.PR_SockOpt_IpTypeOfService, 16),
        ],
    )
    def test_set_and_get(self, option: int, value: object) -> None:
        fd = prio.PR_NewTCPSocket()
        prio.PR_SetSocketOption(fd, PRSocketOptionData(option, value))
        data = PRSocketOptionData(option)
        prio.PR_GetSocketOption(fd, data)
        assert data.value == value
        prio.PR_Close(fd)

    def test_sizes(self) -> None:
        fd = prio.PR_NewTCPSocket()
        for option in (prio.PR_SockOpt_SendBufferSize, prio.PR_SockOpt_RecvBufferSize):
            prio.PR_SetSocketOption(fd, PRSocketOptionData(option, 20000))
            data = PRSocketOptionData(option)
            prio.PR_GetSocketOption(fd, data)
            assert 20000 <= data.value <= 80000  # the system keeps its own accounts in it
        data = PRSocketOptionData(prio.PR_SockOpt_MaxSegment)
        prio.PR_GetSocketOption(fd, data)
        assert data.value > 0
        prio.PR_Close(fd)

    def test_one_that_does_not_exist(self) -> None:
        fd = prio.PR_NewTCPSocket()
        for call in (prio.PR_SetSocketOption, prio.PR_GetSocketOption):
            with pytest.raises(NSPRError, match="PR_OPERATION_NOT_SUPPORTED_ERROR"):
                call(fd, PRSocketOptionData(99, 1))
        with pytest.raises(NSPRError, match="PR_INVALID_ARGUMENT_ERROR"):
            prio.PR_SetSocketOption(fd, PRSocketOptionData(prio.PR_SockOpt_IpTimeToLive, 1000))
        prio.PR_Close(fd)

    def test_inheriting(self) -> None:
        fd = prio.PR_NewTCPSocket()
        number = prio.PR_FileDesc2NativeHandle(fd)
        assert not os.get_inheritable(number)
        prio.PR_SetFDInheritable(fd, True)
        assert os.get_inheritable(number)
        prio.PR_Close(fd)
        with pytest.raises(NSPRError, match="PR_BAD_DESCRIPTOR_ERROR"):
            prio.PR_SetFDInheritable(fd, True)

    def test_the_socket_itself_stays_non_blocking(self) -> None:
        """What waits is one place, whatever the application set; so no call hangs in the system."""
        fd = prio.PR_NewTCPSocket()
        nonblocking(fd, False)
        assert not os.get_blocking(prio.PR_FileDesc2NativeHandle(fd))
        prio.PR_Close(fd)


class TestAddresses:
    def test_texts(self) -> None:
        assert prnetdb.PR_StringToNetAddr("127.0.0.1") == PRNetAddr(prio.PR_AF_INET, "127.0.0.1", 0)
        assert prnetdb.PR_StringToNetAddr("::1").family == prio.PR_AF_INET6
        assert prnetdb.PR_NetAddrToString(prnetdb.PR_StringToNetAddr("0:0::1")) == "::1"
        with pytest.raises(NSPRError, match="PR_INVALID_ARGUMENT_ERROR"):
            prnetdb.PR_StringToNetAddr("localhost")

    def test_special_ones(self) -> None:
        assert prnetdb.PR_InitializeNetAddr(prnetdb.PR_IpAddrAny, 80) == PRNetAddr(prio.PR_AF_INET, "0.0.0.0", 80)
        assert prnetdb.PR_SetNetAddr(prnetdb.PR_IpAddrAny, prio.PR_AF_INET6, 80).ip == "::"
        address = prnetdb.PR_StringToNetAddr("10.1.2.3")
        assert prnetdb.PR_InitializeNetAddr(prnetdb.PR_IpAddrNull, 443, address) == PRNetAddr(prio.PR_AF_INET, "10.1.2.3", 443)
        for value, family, port in ((7, prio.PR_AF_INET, 1), (1, 99, 1), (1, prio.PR_AF_INET, 70000)):
            with pytest.raises(NSPRError, match="PR_INVALID_ARGUMENT_ERROR"):
                prnetdb.PR_SetNetAddr(value, family, port)

    def test_names_of_hosts(self) -> None:
        info = prnetdb.PR_GetAddrInfoByName("localhost", prio.PR_AF_INET, prnetdb.PR_AI_ADDRCONFIG)
        place, address = prnetdb.PR_EnumerateAddrInfo(0, info, 443)
        assert address == PRNetAddr(prio.PR_AF_INET, "127.0.0.1", 443)
        while place:
            place, address = prnetdb.PR_EnumerateAddrInfo(place, info, 443)
        assert address is None
        prnetdb.PR_FreeAddrInfo(info)
        with pytest.raises(NSPRError, match="PR_DIRECTORY_LOOKUP_ERROR"):
            prnetdb.PR_GetAddrInfoByName("no-such-host.invalid")

    def test_names_of_hosts_as_of_old(self) -> None:
        host = prnetdb.PR_GetHostByName("localhost")
        assert prnetdb.PR_EnumerateHostEnt(0, host, 80)[1] == PRNetAddr(prio.PR_AF_INET, "127.0.0.1", 80)
        assert prnetdb.PR_EnumerateHostEnt(len(host.h_addr_list), host, 80) == (0, None)
        with pytest.raises(NSPRError, match="PR_DIRECTORY_LOOKUP_ERROR"):
            prnetdb.PR_GetHostByName("no-such-host.invalid")

    def test_byte_orders(self) -> None:
        assert prnetdb.PR_ntohs(prnetdb.PR_htons(443)) == 443
        assert prnetdb.PR_ntohl(prnetdb.PR_htonl(0x01020304)) == 0x01020304
        assert prnetdb.PR_htons(0x0102).to_bytes(2, "little") in (b"\1\2", b"\2\1")


class TestIntervals:
    def test_units(self) -> None:
        assert prinrval.PR_INTERVAL_MIN <= prinrval.PR_TicksPerSecond() <= prinrval.PR_INTERVAL_MAX
        assert prinrval.PR_IntervalToSeconds(prinrval.PR_SecondsToInterval(7)) == 7
        assert prinrval.PR_IntervalToMilliseconds(prinrval.PR_MillisecondsToInterval(7)) == 7
        assert prinrval.PR_IntervalToMicroseconds(prinrval.PR_MicrosecondsToInterval(7000)) == 7000
        assert prinrval.PR_MicrosecondsToInterval(1) == 1

    def test_the_clock_runs(self) -> None:
        begun = prinrval.PR_IntervalNow()
        prio.PR_Poll([], SOON)
        assert (prinrval.PR_IntervalNow() - begun) & 0xFFFFFFFF >= SOON - 1
