"""Who may connect to a CSMS: passwords, certificates, addresses, identities, sizes."""

import base64
import datetime
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.support.charging_stations import run_beside
from tests.support.street import street
from websockets.exceptions import ConnectionClosed, InvalidStatus

from evgrid.errors import RunError, ScenarioError
from evgrid.ocpp.csms import read_identities
from evgrid.ocpp.security import MAX_MESSAGE_BYTES, Security, hashed, read_passwords

SCENARIO = street(
    {"ensemble.members": 1, "fleet.count": 2, "time.duration": "10min"},
    aggregators={"main": {"strategy": "peak_limit", "limit_kw": 10.0}},
)


def basic(user, password):
    given = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"additional_headers": {"Authorization": f"Basic {given}"}}


async def to_the_end(beside):
    for tick in range(3):
        await beside.tick(tick)


async def refusal(connection):
    """Status with which a connection is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with connection:
            pass
    return refused.value.response.status_code


def test_passwords_and_identities():
    passwords = {name: hashed(f"secret of {name}") for name in ("evgrid-clock", "ev0001", "stranger")}

    async def play(beside):
        found = [
            await refusal(beside.station("ev0001")),
            await refusal(beside.station("ev0001", **basic("ev0001", "a guess"))),
            await refusal(beside.station("ev0001", **basic("stranger", "secret of stranger"))),
            await refusal(beside.station("ev0001", additional_headers={"Authorization": "Basic !"})),
            await refusal(beside.station("ev0002", **basic("ev0002", "secret of ev0002"))),
            await refusal(beside.station("stranger", **basic("stranger", "secret of stranger"))),
        ]
        async with beside.station("ev0001", **basic("ev0001", "secret of ev0001")) as station:
            found.append((await station.boot())["status"])
        await to_the_end(beside)
        return found

    clock = basic("evgrid-clock", "secret of evgrid-clock")
    result, found = run_beside(SCENARIO, play, security=Security(passwords), clock=clock)
    assert found == [401, 401, 401, 401, 401, 404, "Accepted"]
    assert '"unknown identity": 1' in result.attrs["csms"]
    assert '"security_profile": 1' in result.attrs["csms"]
    assert "secret" not in str(result.attrs)


def test_second_connection_replaces_the_first_and_size_is_bounded():
    async def play(beside):
        async with beside.station("ev0001") as first, beside.station("ev0001") as second:
            await first.socket.wait_closed()
            closed = first.socket.close_code, first.socket.close_reason
            status = (await second.boot())["status"]
            with pytest.raises(ConnectionError) as large:
                await second.call("DataTransfer", {"vendorId": "v", "data": "a" * MAX_MESSAGE_BYTES})
        async with beside.client("ev0002", version="9") as other:
            with pytest.raises(ConnectionClosed):
                await other.reading
        await to_the_end(beside)
        return closed, status, large.value.args[0]

    _, found = run_beside(SCENARIO, play)
    assert found == ((1008, "replaced by a new connection"), "Accepted", 1009)


def certificate(name, issuer=None, hosts=()):
    """A key and certificate, signed by ``issuer`` (name, key), or itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, signing = issuer or (name, key)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, by)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)) for host in hosts]), False
        )
    )
    return key, made.sign(signing, hashes.SHA256())


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """Files: of who signs, of the CSMS, of stations, and of one that somebody else signed."""
    folder = tmp_path_factory.mktemp("certificates")
    own, other = certificate("own"), certificate("other")
    kinds = {
        "own": own, "other": other, "csms": certificate("csms", ("own", own[0]), ["127.0.0.1"]),
        "evgrid-clock": certificate("evgrid-clock", ("own", own[0])),
        "ev0001": certificate("ev0001", ("own", own[0])),
        "ev0002": certificate("ev0002", ("other", other[0])),
    }  # fmt: skip
    for name, (key, made) in kinds.items():
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (folder / f"{name}.key").write_bytes(text)
    return folder


def shows(pem, name=None, trusts="own"):
    context = ssl.create_default_context(cafile=pem / f"{trusts}.pem")
    if name is not None:
        context.load_cert_chain(pem / f"{name}.pem", pem / f"{name}.key")
    return context


def test_certificates_of_both_sides(pem):
    """The station's names it, signed by who the CSMS trusts; the station trusts who signed the CSMS's."""

    async def play(beside):
        found = []
        for name, identity, trusts in (
            ("ev0001", "ev0001", "other"), ("ev0002", "ev0002", "own"), (None, "ev0001", "own"),
            ("ev0001", "ev0002", "own"), ("ev0001", "ev0001", "own"),
        ):  # fmt: skip
            try:
                async with beside.station(identity, ssl=shows(pem, name, trusts)) as station:
                    found.append((await station.boot())["status"])
            except ssl.SSLCertVerificationError:
                found.append("certificate of the CSMS not trusted")
            except InvalidStatus as refused:
                found.append(refused.response.status_code)
            except (ConnectionError, EOFError, ssl.SSLError, ConnectionClosed):
                found.append("handshake refused")
            except Exception as error:
                found.append("handshake refused" if "did not receive" in str(error) else repr(error))
        await to_the_end(beside)
        return found

    security = Security(None, pem / "csms.pem", pem / "csms.key", pem / "own.pem")
    clock = {"ssl": shows(pem, "evgrid-clock")}
    result, found = run_beside(SCENARIO, play, security=security, clock=clock)
    assert found == [
        "certificate of the CSMS not trusted", "handshake refused", "handshake refused", 401, "Accepted",
    ]  # fmt: skip
    assert '"security_profile": 3' in result.attrs["csms"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "csms.example"])
def test_address_that_others_reach_needs_authentication(host):
    with pytest.raises(ScenarioError, match=f"--listen {host}: an address other than loopback needs auth"):
        Security().check_address(host)
    Security({"a": hashed("b")}).check_address(host)


def test_address_in_use_is_said():
    async def play(beside):
        port = int(beside.url.rpartition(":")[2])
        with pytest.raises(RunError, match=f"the CSMS can't listen at 127.0.0.1:{port}: "):
            run_beside(SCENARIO, play, address=("127.0.0.1", port))
        await to_the_end(beside)

    run_beside(SCENARIO, play)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a:b", "line 1: must be IDENTITY:scrypt:SALT:HASH"),
        ("# a comment\n\nCP_1:scrypt:00:zz", "line 3: must be"),
        (f"CP_1:{hashed('x')}\nCP_1:{hashed('y')}", "line 2: CP_1 is given twice"),
    ],
)
def test_passwords_at_fault(tmp_path, text, says):
    (tmp_path / "passwords").write_text(text)
    with pytest.raises(ScenarioError, match=says) as fault:
        read_passwords(tmp_path / "passwords")
    assert "zz" not in str(fault.value)


def test_tls_files_at_fault(tmp_path):
    (tmp_path / "a.pem").write_text("no certificate")
    with pytest.raises(ScenarioError, match="TLS files can't be used"):
        Security(None, tmp_path / "a.pem", tmp_path / "a.pem").context()
    with pytest.raises(ScenarioError, match="--tls-cert and --tls-key are given together"):
        Security(None, tmp_path / "a.pem")
    with pytest.raises(ScenarioError, match="--client-ca needs --tls-cert and --tls-key"):
        Security(None, client_ca=tmp_path / "a.pem")


@pytest.mark.parametrize(
    ("text", "says"),
    [("- CP_1", "must hold a mapping"), ("CP_1: 4", "must be lines of IDENTITY: EV"),
     ("CP_1: ev0001\nCP_2: ev0001", "ev0001 has several stations")],
)  # fmt: skip
def test_identities_at_fault(tmp_path, text, says):
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ScenarioError, match=says):
        read_identities(tmp_path / "map.yaml")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"ensemble.members": 2}, "ensemble.members = 2: a CSMS has one fleet of stations; must be 1"),
        (
            {"aggregators.main": {"strategy": "uncontrolled"}},
            "none sends set-points, so there is nothing for a CSMS to do",
        ),
        (
            {"aggregators.b": {"strategy": "peak_limit", "limit_kw": 1.0, "evs": {"share": 0.5}}},
            "main, b send",
        ),
    ],
)
def test_scenarios_that_a_csms_cannot_run(overrides, says):
    with pytest.raises(ScenarioError, match=says):
        run_beside(street({"ensemble.members": 1, **overrides}, aggregators={"main": {
            "strategy": "peak_limit", "limit_kw": 10.0}}), to_the_end)  # fmt: skip
