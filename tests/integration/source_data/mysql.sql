/*M!999999\- enable the sandbox mode */ 
-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)
--
-- Host: localhost    Database: gallery
-- ------------------------------------------------------

/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!40101 SET NAMES utf8mb4 */;

CREATE DATABASE /*!32312 IF NOT EXISTS*/ `gallery` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;

USE `gallery`;

DROP TABLE IF EXISTS `faces`;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `faces` (
  `id` int(11) NOT NULL AUTO_INCREMENT,
  `data` blob DEFAULT NULL COMMENT 'it''s \'bytes\'; (really)',
  `photo_id` int(11) DEFAULT NULL,
  `key` enum('a','b),') DEFAULT 'a',
  `label_id` int(11) DEFAULT NULL,
  `updated_at` datetime(1) NOT NULL DEFAULT current_timestamp(1) ON UPDATE current_timestamp(1),
  PRIMARY KEY (`id`),
  KEY `photo_id` (`photo_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

LOCK TABLES `faces` WRITE;
/*!40000 ALTER TABLE `faces` DISABLE KEYS */;
INSERT INTO `faces` VALUES
(1,_binary '\0\t\n\r\'\"\\\Z',10,'a',1,'2016-01-01 10:00:00.0'),
(2,0x00FF27,10,'a',NULL,'2019-01-01 00:00:00.0'),
(3,x'27',11,'b),',2,'2016-01-01 10:00:00.5'),(4,NULL,12,'a',3,'2017-05-05 00:00:00.0');
INSERT INTO `faces` (`label_id`, `updated_at`, `id`, `photo_id`) VALUES (4,'2016-01-01 10:00:00.0',5,13),(1,'2016-01-01 10:00:00.0',6,14),(2,'2016-01-01 10:00:00.0',7,14),(99,'2016-01-01 10:00:00.0',8,15),(1,'2016-01-01 10:00:00.0',9,NULL);
INSERT IGNORE INTO `faces` VALUES (10,'',16,'a',5,'2016-01-01 10:00:00.0');
/*!40000 ALTER TABLE `faces` ENABLE KEYS */;
UNLOCK TABLES;
/*!50003 SET sql_mode = 'STRICT_TRANS_TABLES' */ ;
DELIMITER ;;
/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER keep AFTER INSERT ON faces
FOR EACH ROW BEGIN
  -- don't mind; this
  INSERT INTO labels VALUES (NEW.label_id, 'not a row');
END */;;
DELIMITER ;

CREATE TABLE `labels` (
  `id` int(11) NOT NULL,
  `name` varchar(255) DEFAULT NULL,
  UNIQUE KEY `name` (`name`)
) ENGINE=InnoDB;
INSERT INTO `labels` VALUES (1,'宇佐美 幸乃'),(2,'O\'Neill; \"A\" \\ b'),(3,NULL),(4,'👩‍🎤 one\ntwo	three'),(5,'');

CREATE TABLE `photos` (
  `source_url` varchar(1024) DEFAULT NULL,
  `id` int(11) NOT NULL,
  `posted_at` datetime DEFAULT NULL,
  `photo_url` varchar(1024) NOT NULL,
  FULLTEXT KEY `words` (`source_url`)
);
INSERT INTO `photos` VALUES ('http://s.test/10',10,'2016-01-02 03:04:05','http://p.test/10.jpg'),
(NULL,11,NULL,'http://p.test/''quoted\'.jpg?a=1;b=2'),
('C:\\temp\\new',12,'2017-05-05 00:00:00','http://p.test/12,comma.jpg'),
('',13,'2016-01-02 03:04:05','http://p.test/13.jpg'),
(NULL,14,'2016-01-02 03:04:05','http://p.test/14.jpg'),
(NULL,15,'2016-01-02 03:04:05','http://p.test/15.jpg'),
('line\nbreak; -- no comment /* nor here */ $$ {1}',16,'2016-01-02 03:04:05',0x687474703A2F2F702E746573742FE7B5B52E6A7067);

/*!50001 CREATE VIEW `people` AS SELECT 1 AS `id`*/;
# the end
-- Dump completed on 2024-01-01 00:00:00
