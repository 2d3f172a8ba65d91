//! The names in certificates, as OpenSSL's `X509_NAME_oneline` writes them: accounts are compared with that.

use std::fmt::Write;

use rustls::pki_types::CertificateDer;
use x509_cert::{Certificate, der::Decode, name::RdnSequence};

use super::Names;

impl Names {
    /// `None` if the certificate cannot be read.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        Some(Self {
            subject: one_line(&certificate.tbs_certificate.subject),
            issuer: one_line(&certificate.tbs_certificate.issuer),
        })
    }
}

fn one_line(name: &RdnSequence) -> String {
    let mut line = String::new();
    for attribute in name.0.iter().flat_map(|set| set.0.iter()) {
        line.push('/');
        let oid = attribute.oid.to_string();
        let short = SHORT.iter().find(|(dotted, _)| *dotted == oid);
        line.push_str(short.map_or(&oid, |(_, short)| short));
        line.push('=');
        for &byte in attribute.value.value() {
            if (b' '..=b'~').contains(&byte) {
                line.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(line, "\\x{byte:02X}");
            }
        }
    }
    line
}

/// OpenSSL's short names of what stands in names.
const SHORT: [(&str, &str); 20] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn names_are_written_as_openssl_does() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let name = &mut params.distinguished_name;
        *name = rcgen::DistinguishedName::new();
        name.push(DnType::CountryName, "SE");
        name.push(DnType::OrganizationName, "Mär/chen \"AB\"");
        name.push(DnType::from_oid(&[2, 5, 4, 65]), "p");
        name.push(DnType::CommonName, "db1");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = Names::of(certificate.der()).unwrap();
        let expected = "/C=SE/O=M\\xC3\\xA4r/chen \"AB\"/2.5.4.65=p/CN=db1";
        assert_eq!(names.subject, expected);
        assert_eq!(names.issuer, expected);
        assert_eq!(Names::of(&CertificateDer::from(vec![0x30, 0x80])), None);
    }
}
